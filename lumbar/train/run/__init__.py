"""A run as it lies on disk and what it is made of: configuration, split, network, checkpoint."""
