"""Read one DICOM file: parse it, read and check its header, decode its pixels."""
