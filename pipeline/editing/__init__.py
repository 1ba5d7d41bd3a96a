"""Latents that move while a frozen generator is judged: one loop (optimize.py), four uses of it.

sampling, semantic, style and directions have the same modules: method, study, report, files.
"""
