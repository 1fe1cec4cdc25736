"""Files and folders: atomic writing, locks, read-ahead, the page cache, write permission."""
