"""Where slices lie in the patient: orientation, order, stacks, grids, points, planes."""
