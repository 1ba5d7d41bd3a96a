"""Semantic-Conditional Sampling (SCS): samples whose mask is a given one (Xu & Zheng, sec. 5)."""
