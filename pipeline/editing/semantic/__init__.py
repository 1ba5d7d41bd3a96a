"""Semantic Image Editing (SIE): a mask is changed, the image follows (Xu & Zheng, sec. 5)."""
