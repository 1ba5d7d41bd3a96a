"""Editing in Style: parts of a reference's look on a target (Collins et al., CVPR 2020)."""
