"""Arrays on disk: latents, images, masks, annotations, and stores of features and pixels.

A new annotation format is one reader in annotation_formats.py. Images are uint8 NCHW, masks class
ids.
"""
