"""Editing by segmentation: latents are moved until a frozen generator shows what a mask asks for."""
