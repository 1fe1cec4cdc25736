"""The contestants of `reader.py`, one module each, and how they are measured."""
