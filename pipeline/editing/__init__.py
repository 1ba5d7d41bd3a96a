"""Latents that move while a frozen generator is judged: one loop (optimize.py), five uses of it.

Each use is a package: `method` is the method itself, `study` measures it on many samples.
"""
