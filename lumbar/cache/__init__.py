"""The contract: names, the format on disk, and how it is written, read and verified.

Knows nothing of DICOM, DALI or torch.
"""
