"""Several models as one: combined cell by cell, or blended by fitted weights."""
