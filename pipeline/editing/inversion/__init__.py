"""Inversion: the latents whose image is a photograph."""
