"""Where slices lie in the patient: orientation, order, stacks, the in-plane grid, and points."""
