"""What `preprocess.py` runs: generated series, the floor, lumbar and its peers, and the rows."""
