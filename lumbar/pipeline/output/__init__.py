"""Write the cache: open it, find what is unchanged, write its tables."""
