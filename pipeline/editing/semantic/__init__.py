"""Semantic Image Editing (SIE): a sample's mask is changed, the image follows (Xu & Zheng, sec. 5)."""
