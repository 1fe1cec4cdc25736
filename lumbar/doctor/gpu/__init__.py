"""Checks of a GPU; on the CPU tests run them too."""
