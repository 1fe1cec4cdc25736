"""What a source holds: its layout, its files on disk and in archives, its CSV tables."""
