"""From runs to predictions: forward passes, out-of-fold tables, blends, export."""
