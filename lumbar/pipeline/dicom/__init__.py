"""One DICOM file: its elements, header and identity, and its pixels through a codec."""
