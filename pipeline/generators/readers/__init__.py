"""File formats of published checkpoints, read as data: nothing in a file is ever executed.

A new format is one module, recognized by its content in formats.py.
"""
