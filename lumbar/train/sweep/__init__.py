"""Sweeps: many short runs, each with other settings, towards the best held-out metric."""
