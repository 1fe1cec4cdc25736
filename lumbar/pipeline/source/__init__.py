"""Where the files come from: layouts, folders, archives, CSV tables, shards."""
