"""Generated studies as real DICOM files, in the shape of the RSNA 2024 data set.

The anatomy is an analytic model in patient millimetres, evaluated at the position of each pixel,
so a finding is in the picture whatever the geometry of the slices.
"""
