"""GAN families behind one contract: mapping, synthesis, taps and styles.

A family is one module with `build(tensors)` and an entry of FAMILIES in registry.py; how its
published checkpoints are recognized and converted stands in readers/ and importers/.
"""
