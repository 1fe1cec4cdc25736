"""The places of a sample's vector of numbers: what the plan draws and the pixels are made with.

A sample's pixels are a function of its volume, slices, matrix, this float32 vector and the key of
its noise. Plan, CPU and GPU read the same places. In the order in which the steps are made:

1. ``GAIN``, ``OFFSET``: value = stored * gain + offset.
2. ``GRID_H``, ``GRID_W``: the rows and columns sampled from the source; the output's own if off.
3. ``BLUR_SIGMA``: pixels of the output, 0 if off.
4. ``BIAS``: the coefficients of x, y, x*x, x*y and y*y in the logarithm of the field, 0 if off.
5. ``GAMMA``: the exponent, 1 if off.
6. ``NOISE``: its standard deviation, 0 if off.
7. ``CUTOUT``: first slice, row and column of the box that is 0, and the ones behind its last.
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
