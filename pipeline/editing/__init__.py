"""Editing by segmentation: latents move until a frozen generator shows what a mask asks for."""
