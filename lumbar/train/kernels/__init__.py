"""The CPU's execution of a sample, compiled: stored slices in, augmented pixels out."""
