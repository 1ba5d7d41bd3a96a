"""Labeled data sets of generated samples, for networks that segment real images (DatasetGAN)."""
