"""Where classes lie in feature space: class centers, cosines, taps (Xu & Zheng, section 4.3)."""
