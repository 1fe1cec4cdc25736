"""Convert one series: from its files to one normalised volume in the cache."""
