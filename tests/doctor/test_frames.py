"""The frames that are kept as text hold the gradients, by the codecs' own library.

They were encoded by imagecodecs 2026.3.6 (``jpeg8_encode(level=95)`` and ``lossless=True,
predictor=1, bitspersample=12``; ``jpegls_encode``; ``jpeg2k_encode(codecformat="j2k",
reversible=True, bitspersample=12)``; ``htj2k_encode(reversible=True)``) and pylibjpeg-rle 2.2.0.
"""

import imagecodecs
import numpy as np
import pytest

from lumbar.doctor.checks import DECODERS
from lumbar.doctor.frames import FRAMES, gradient, gradient_of_8_bits

DECODED_BY = {
    "RLE": lambda data: np.frombuffer(
        bytes(imagecodecs.dicomrle_decode(data, np.dtype("<u2"))), "<u2"
    ).reshape(16, 16),
    "JPEG lossless": imagecodecs.jpeg8_decode,
    "JPEG-LS": imagecodecs.jpegls_decode,
    "JPEG 2000": imagecodecs.jpeg2k_decode,
    "HTJ2K": imagecodecs.htj2k_decode,
}


@pytest.mark.parametrize("name", DECODED_BY)
def test_compressed_frames_hold_the_gradient(name):
    for frame in FRAMES[name]:
        assert np.array_equal(DECODED_BY[name](frame.data), gradient())


def test_frame_with_loss_holds_the_gradient_of_8_bits_nearly():
    (frame,) = FRAMES["JPEG"]
    found = imagecodecs.jpeg8_decode(frame.data).astype(int)
    assert np.abs(found - gradient_of_8_bits()).max() <= frame.tolerance


def test_there_is_a_check_for_each_kind_of_frame():
    assert tuple(FRAMES) == DECODERS
