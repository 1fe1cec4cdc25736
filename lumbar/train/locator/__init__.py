"""Where the five discs of a series lie, found without annotation."""
