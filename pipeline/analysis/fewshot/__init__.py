"""Few-shot linear extractors: a handful of annotated samples (Xu & Zheng, section 4.1)."""
