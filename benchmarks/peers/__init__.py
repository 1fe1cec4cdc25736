"""Other packages' loaders; each module alone imports its package."""
