"""Networks that segment images: loading, label spaces, labeling of samples, training.

A new architecture is an entry of NETWORKS in networks.py; weights of another project are a branch
of `_open` in registry.py.
"""
