"""Networks that segment images: loading, label spaces, labeling of samples, training.

A new teacher is one branch of `load_teacher` in registry.py that gives class probabilities.
"""
