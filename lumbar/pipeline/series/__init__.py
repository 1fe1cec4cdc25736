"""One series: from its files to one normalised volume."""
