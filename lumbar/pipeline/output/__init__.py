"""The cache that is written: opened or begun, what is unchanged, the tables at the end."""
