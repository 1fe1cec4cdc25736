"""Checks that need no GPU."""
