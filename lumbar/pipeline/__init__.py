"""The offline half: DICOM and CSV files become a cache. Knows nothing of DALI or torch."""
