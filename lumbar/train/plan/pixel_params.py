"""The indices of a sample's vector of pixel parameters, which the plan fills.

A sample's pixels are a function of its volume, slices, matrix, this float32 vector and the key of
its noise. CPU and GPU read the same vector. The steps, in their order:

1. ``GAIN``, ``OFFSET``: value = stored * gain + offset.
2. ``GRID_H``, ``GRID_W``: rows and columns sampled from the source; the output's size if off.
3. ``BLUR_SIGMA``: pixels of the output, 0 if off.
4. ``BIAS``: the coefficients of x, y, x*x, x*y and y*y in the logarithm of the field, 0 if off.
5. ``GAMMA``: the exponent, 1 if off.
6. ``NOISE``: its standard deviation, 0 if off.
7. ``CUTOUT``: the box set to 0: first slice, row and column, then those behind its last.
"""

from __future__ import annotations

GAIN = 0
OFFSET = 1
GRID_H = 2
GRID_W = 3
BLUR_SIGMA = 4
BIAS = 5
GAMMA = 10
NOISE = 11
CUTOUT = 12
COUNT = 18
