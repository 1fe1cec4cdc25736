"""A small network that finds the five discs of a series without annotation."""
