"""The measurements: windows, repeats, spreads, steps, cold starts."""
