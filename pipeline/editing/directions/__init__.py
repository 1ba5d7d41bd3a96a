"""Closed-form latent directions (SeFa; Shen & Zhou, CVPR 2021), named and measured by masks."""
