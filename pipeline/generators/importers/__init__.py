"""Published checkpoints to our tensors: tensor names of other projects, and folded factors.

A new source of weights is a layout (names) and a translation (values), or a package (published.py).
"""
