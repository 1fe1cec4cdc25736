"""Files and folders beneath a cache: its lock, read-ahead, the page cache, may it be written."""
