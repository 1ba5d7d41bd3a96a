"""Semantic extractors: networks from taps to class logits, their fits and predictions.

A new extractor is one class and an entry of KINDS, or one variant of a class, in networks.py.
"""
