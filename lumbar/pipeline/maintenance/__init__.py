"""A cache that is there: merged with others, repaired, its profile converted."""
