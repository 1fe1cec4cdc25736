"""Compiled CPU code that renders a view: stored slices in, augmented pixels out."""
