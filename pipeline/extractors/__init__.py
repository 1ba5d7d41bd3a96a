"""Semantic extractors: networks from taps to class logits, their fits and predictions.

A new extractor is one class and one entry of the registry.
"""
