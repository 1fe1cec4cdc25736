"""Change a finished cache: merge shards, repair damage, convert the profile."""
