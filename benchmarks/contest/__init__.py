"""What `reader.py` runs: the contestants, how they are measured, and the rows."""
