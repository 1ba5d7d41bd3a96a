"""Semantic extractors: networks from taps to class logits, their fits and predictions.

A new extractor is an entry of registry.py; a new network is a class in networks/nse.py, too.
"""
