"""Compressed frames: every transfer syntax, bit layout and fragmentation gives the same values."""

import struct

import imagecodecs
import numpy as np
import pytest
from fixtures.dicom import (
    LOSSLESS,
    NATIVE,
    PREFIX,
    compressed,
    described,
    jpeg_2000,
    lossless_jpeg,
    plain,
    smooth,
)
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    RLELossless,
)

from lumbar.pipeline.dicom import codecs
from lumbar.pipeline.dicom.codestream import find_family, read_codestream
from lumbar.pipeline.dicom.decode import decode
from lumbar.pipeline.dicom.parse import quiet_pydicom
from lumbar.pipeline.reject import Reason, RejectedError

LOSSY = {
    "50": (lambda a: imagecodecs.jpeg8_encode(a, level=97), 8),
    "51": (lambda a: imagecodecs.jpeg8_encode(a, level=97, bitspersample=12), 12),
    "81": (lambda a: imagecodecs.jpegls_encode(a, level=2), 12),
    "91": (
        lambda a: imagecodecs.jpeg2k_encode(a, level=75, codecformat="j2k", reversible=False),
        12,
    ),
    "203": (lambda a: imagecodecs.htj2k_encode(a, 0.0005, reversible=False), 12),
}
"""With loss: how, and the bits of a value."""


def unsigned(values, bits):
    """Return the lowest bits as an encoder that knows no sign wants them."""
    return values.view(f"u{values.dtype.itemsize}") & np.uint16((1 << bits) - 1).astype(
        f"u{values.dtype.itemsize}"
    )


@pytest.fixture
def no_slow_decoder(monkeypatch):
    """Fail where pydicom's own decoders are asked."""

    def refuse(*_):
        pytest.fail("the fast decoder did not take the frame")

    monkeypatch.setattr(codecs, "_decode_by_pydicom", refuse)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("number", LOSSLESS)
@pytest.mark.usefixtures("no_slow_decoder")
def test_lossless_frames_are_the_picture(number, bits, signed):
    expected = smooth(bits, signed=signed)
    frame = LOSSLESS[number](unsigned(expected, bits), bits)
    dataset = compressed(expected, frame, number, bits)
    found = decode(dataset, 0).values
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.usefixtures("no_slow_decoder")
def test_jpeg_2000_that_knows_its_sign(bits):
    expected = smooth(bits, signed=True)
    frame = jpeg_2000(expected, bits)
    dataset = compressed(expected, frame, "90", bits)
    assert read_codestream(frame, PREFIX + "90").is_signed
    assert np.array_equal(decode(dataset, 0).values, expected)


@pytest.mark.parametrize("number", LOSSY)
def test_lossy_frames_are_nearly_the_picture_and_pydicoms(number):
    encode, bits = LOSSY[number]
    expected = smooth(bits)
    frame = bytes(encode(expected))
    dataset = compressed(expected, frame, number, bits)
    found = decode(dataset, 0).values
    assert found.dtype == expected.dtype
    difference = np.abs(found.astype(int) - expected)
    assert 0 < difference.max() <= 2**bits / 50
    assert np.array_equal(found, dataset.pixel_array)
    is_exact = read_codestream(frame, PREFIX + number).is_reversible
    assert is_exact == (number == "81")


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("rle", [False, True], ids=["raw", "rle"])
@pytest.mark.usefixtures("no_slow_decoder")
def test_bits_above_the_value_are_dropped(bits, signed, rle):
    """Overlays and scratch values of scanners lie above BitsStored; the sign is below them."""
    expected = smooth(bits, signed=signed).astype("i2" if signed else "u2")
    rng = np.random.default_rng(bits)
    noise = rng.integers(0, 2**16, expected.shape, np.uint16) << np.uint16(bits % 16)
    noise = noise if bits < 16 else np.zeros_like(noise)
    stored = unsigned(expected, bits) | noise
    assert bits == 16 or not np.array_equal(stored.view(expected.dtype), expected)
    dataset = plain(stored, stored=16)
    if rle:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    assert np.array_equal(decode(dataset, 0).values, expected)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.usefixtures("no_slow_decoder")
def test_rle_of_one_byte_a_pixel(signed):
    expected = smooth(8, 37, 41, signed=signed)
    data = expected.tobytes() + b"\0"
    dataset = described(expected, stored=8, syntax=ExplicitVRLittleEndian, data=data)
    dataset.compress(RLELossless, expected, generate_instance_uid=False)
    found = decode(dataset, 0).values
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.usefixtures("no_slow_decoder")
def test_every_predictor_of_lossless_jpeg(predictor):
    expected = smooth(12)
    frame = bytes(lossless_jpeg(predictor)(expected, 12))
    dataset = compressed(expected, frame, "57", 12)
    assert np.array_equal(decode(dataset, 0).values, expected)


@pytest.mark.usefixtures("no_slow_decoder")
def test_jpeg_2000_in_boxes_is_read_though_the_standard_forbids_them():
    expected = smooth(12)
    frame = imagecodecs.jpeg2k_encode(
        expected, codecformat="jp2", reversible=True, bitspersample=12
    )
    assert frame[4:8] == b"jP  "
    dataset = compressed(expected, frame, "90", 12)
    assert np.array_equal(decode(dataset, 0).values, expected)


def layouts():
    """Yield (name, how to encapsulate frames) of every way that frames lie in a file."""
    for fragments in (1, 3):
        for has_table in (True, False):
            yield f"{fragments}-{'table' if has_table else 'no-table'}", (fragments, has_table)
    yield "extended", None


@pytest.mark.parametrize("layout", [pytest.param(how, id=name) for name, how in layouts()])
@pytest.mark.parametrize("number", ["70", "80", "90", "201"])
@pytest.mark.usefixtures("no_slow_decoder")
def test_frames_in_fragments_with_and_without_offset_tables(number, layout):
    expected = np.stack([smooth(12) // k for k in (1, 2, 3, 5)])
    frames = [bytes(LOSSLESS[number](one, 12)) for one in expected]
    dataset = described(expected, stored=12, syntax=PREFIX + number, data=b"")
    dataset.NumberOfFrames = len(frames)
    if layout is None:
        data, offsets, lengths = encapsulate_extended(frames)
        dataset.PixelData = data
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    else:
        fragments, has_table = layout
        dataset.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=has_table)
    for index, one in enumerate(expected):
        assert np.array_equal(decode(dataset, index).values, one)


@pytest.mark.usefixtures("no_slow_decoder")
def test_extended_offset_table_says_where_frames_lie():
    """Stored the other way round: without the table the frames would come backwards."""
    expected = [smooth(12) // k for k in (1, 2, 3)]
    frames = [bytes(LOSSLESS["90"](one, 12)) for one in expected]
    data, offsets, lengths = encapsulate_extended(frames[::-1])
    dataset = described(np.stack(expected), stored=12, syntax=PREFIX + "90", data=data)
    dataset.NumberOfFrames = 3
    dataset.ExtendedOffsetTable = struct.pack("<3Q", *struct.unpack("<3Q", offsets)[::-1])
    dataset.ExtendedOffsetTableLengths = struct.pack("<3Q", *struct.unpack("<3Q", lengths)[::-1])
    for index, one in enumerate(expected):
        assert np.array_equal(decode(dataset, index).values, one)


def test_single_frame_in_many_fragments_without_a_table(tools, tmp_path):
    """As some archives write it: every 200 bytes a fragment, the frame only their sum."""
    phantom = tools.phantom

    def compress(dataset, index):
        frame = bytes(jpeg_2000(phantom.picture(index), 16))
        parts = len(frame) // 200 + 1
        dataset.PixelData = encapsulate([frame], fragments_per_frame=parts, has_bot=False)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True

    def write(folder):
        for index in range(phantom.depth):
            dataset = phantom.dataset(index)
            compress(dataset, index)
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = UID(PREFIX + "90")
            dataset.preamble = bytes(128)
            folder.mkdir(exist_ok=True)
            dataset.save_as(folder / str(index), enforce_file_format=False)

    write(tmp_path / "src")
    phantom.write(tmp_path / "plain")
    tools.assert_same_volume(tmp_path)


def test_every_reading_of_the_standard_has_a_decoder():
    for number in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203):
        assert codecs.find_decoder(f"{PREFIX}{number}").is_available
    for uid in (*NATIVE.values(), RLELossless):
        assert codecs.find_decoder(uid).is_available


def bomb(number):
    """Return a frame of 16 x 16 pixels whose codestream says 60,000 x 60,000."""
    frame = bytearray(LOSSLESS[number](smooth(12, 16, 16), 12))
    if number in {"90", "201"}:
        at = frame.index(b"\xff\x4f\xff\x51") + 8
        frame[at : at + 8] = struct.pack(">II", 60000, 60000)
    else:
        marker = b"\xff\xf7" if number == "80" else b"\xff\xc3"
        at = frame.index(marker) + 5
        frame[at : at + 4] = struct.pack(">HH", 60000, 60000)
    return bytes(frame)


@pytest.mark.parametrize("number", ["70", "80", "90", "201"])
def test_frame_that_is_larger_than_its_header_says_is_not_decoded(number, monkeypatch):
    """The header has 16 x 16 pixels; the frame would make room for seven gigabytes."""
    dataset = described(
        smooth(12, 16, 16), stored=12, syntax=PREFIX + number, data=encapsulate([bomb(number)])
    )
    asked = []
    for name in ("_decode_fast", "_decode_by_pydicom"):
        monkeypatch.setattr(codecs, name, lambda *_: asked.append(1))
    with pytest.raises(RejectedError, match="60000 x 60000 pixels") as caught:
        decode(dataset, 0)
    assert caught.value.reason is Reason.UNDECODABLE
    assert not asked


def test_frame_of_several_components_is_refused():
    frame = imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8))
    dataset = described(
        smooth(8, 16, 16), stored=8, syntax=PREFIX + "50", data=encapsulate([bytes(frame)])
    )
    with pytest.raises(RejectedError, match="of 3 components"):
        decode(dataset, 0)


def test_rle_frame_with_more_bytes_than_pixels_is_still_read():
    """Odd rows are padded by some encoders: the fast decoder refuses them, pydicom's does not."""
    expected = smooth(12, 15, 15)
    dataset = described(
        expected, stored=12, syntax=ExplicitVRLittleEndian, data=expected.tobytes() + b"\0\0"
    )
    dataset.compress(RLELossless, expected, generate_instance_uid=False)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    first, second = struct.unpack_from("<II", frame, 4)
    longer = frame[:second] + b"\x00\x00" + frame[second:] + b"\x00\x00"
    header = struct.pack("<III", 2, first, second + 2) + bytes(52)
    dataset.PixelData = encapsulate([header + longer[64:]])
    assert np.array_equal(decode(dataset, 0).values, expected)


@pytest.mark.parametrize("number", ["50", "57", "80", "90", "201"])
@pytest.mark.parametrize("cut", [1, 3, 20])
def test_frame_that_ends_in_its_header_is_named(number, cut):
    encode = LOSSLESS.get(number) or (lambda a, bits: imagecodecs.jpeg8_encode(a >> 4))
    values = smooth(12, 16, 16)
    frame = bytes(encode(values, 12))[:cut]
    dataset = compressed(values, frame, number, 12)
    with pytest.raises(RejectedError) as caught:
        decode(dataset, 0)
    assert caught.value.reason is Reason.UNDECODABLE
    assert caught.value.detail.startswith(UID(PREFIX + number).name)


@pytest.mark.parametrize("number", [*LOSSLESS, "50", "51"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_frame_that_is_cut_short_is_named_and_not_filled_up(number, share):
    """Decoders of JPEG return a picture with a grey rest, and one of JPEG-LS searches on."""
    bits = 8 if number == "50" else 12
    values = smooth(bits, 64, 64)
    encode = LOSSLESS.get(number) or (lambda a, bits: LOSSY[number][0](a))
    frame = bytes(encode(values, bits))
    dataset = compressed(values, frame[: int(len(frame) * share)], number, bits)
    with pytest.raises(RejectedError) as caught:
        decode(dataset, 0)
    assert caught.value.reason in {Reason.TRUNCATED, Reason.UNDECODABLE}


@pytest.mark.parametrize("number", ["57", "80", "90", "201"])
@pytest.mark.parametrize("tail", [b"\0", b"\xff", b"\0" * 40])
@pytest.mark.usefixtures("no_slow_decoder")
def test_bytes_after_the_end_of_a_frame_are_ignored(number, tail):
    values = smooth(12, 64, 64)
    frame = bytes(LOSSLESS[number](values, 12)) + tail
    dataset = compressed(values, frame, number, 12)
    assert np.array_equal(decode(dataset, 0).values, values)


@pytest.mark.parametrize("number", ["51", "52", "53", "54", "55"])
def test_lossy_jpeg_of_twelve_bits_is_read_where_pydicom_refuses(number, monkeypatch):
    """Extended, and the retired forms of the same process: nobody knows those by their name."""

    def refuse(*_):
        raise RejectedError(Reason.UNDECODABLE, "no")

    monkeypatch.setattr(codecs, "_decode_by_pydicom", refuse)
    values = smooth(12)
    frame = imagecodecs.jpeg8_encode(values, level=97, bitspersample=12)
    found = decode(compressed(values, frame, number, 12), 0).values
    assert found.dtype == np.uint16
    assert np.abs(found.astype(int) - values).max() < 120
    assert np.array_equal(found, imagecodecs.jpeg8_decode(frame))


@pytest.mark.parametrize(
    ("number", "encode"),
    [
        ("65", lambda a: imagecodecs.jpeg8_encode(a, lossless=True, bitspersample=12)),
        ("92", lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True)),
        ("110", lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
        ("112", lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
        ("99", imagecodecs.jpegls_encode),
    ],
)
def test_frames_of_an_unknown_syntax_are_read_by_what_they_are(number, encode):
    values = smooth(12)
    frame = encode(values)
    assert find_family(bytes(frame))
    found = decode(compressed(values, frame, number, 12), 0).values
    assert np.array_equal(found, values)


@pytest.mark.parametrize("number", ["51", "53", "110"])
def test_a_frame_that_is_not_as_the_header_says_is_refused(number):
    """Of other rows, or of more bits: the last decoder is no way around a check."""
    values = smooth(12)
    encode = imagecodecs.jpegxl_encode if number == "110" else imagecodecs.jpeg8_encode
    options = {"lossless": True} if number == "110" else {"level": 97, "bitspersample": 12}
    frame = encode(values, **options)
    higher = compressed(values, frame, number, 12)
    higher.Rows += 1
    with pytest.raises(RejectedError):
        decode(higher, 0)
    if number == "53":
        fewer = compressed(values, frame, number, 10)
        with pytest.raises(RejectedError):
            decode(fewer, 0)


def test_unknown_bytes_of_an_unknown_syntax_are_named():
    values = smooth(12)
    dataset = compressed(values, b"nothing that is known", "53", 12)
    with pytest.raises(RejectedError) as caught:
        decode(dataset, 0)
    assert caught.value.reason is Reason.UNSUPPORTED_TRANSFER_SYNTAX


def image(tools):
    dataset = tools.phantom.dataset(0)
    dataset.PixelData = tools.phantom.picture(0).tobytes()
    return dataset


def test_offset_tables_that_lie_are_named(tools):
    """Offsets beyond the end, and an extended table of nonsense, end as a reason."""
    dataset = image(tools)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.compress(RLELossless, generate_instance_uid=False)
    frame = dataset.PixelData[16:]
    table = struct.pack("<HHII", 0xFFFE, 0xE000, 4, 2**31)
    for change in ("basic", "extended"):
        if change == "basic":
            dataset.PixelData = table + frame
        else:
            dataset.PixelData = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + frame
            dataset.ExtendedOffsetTable = struct.pack("<Q", 2**40)
            dataset.ExtendedOffsetTableLengths = struct.pack("<Q", 2**40)
        with quiet_pydicom(), pytest.raises(RejectedError) as caught:
            decode(dataset, 0)
        assert caught.value.reason is Reason.UNDECODABLE


def test_frames_fewer_than_the_header_says(tools):
    dataset = image(tools)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.5")
    dataset.PixelData = encapsulate([b"\0\0"])
    with quiet_pydicom(), pytest.raises(RejectedError) as caught:
        decode(dataset, 3)
    assert caught.value.reason is Reason.UNDECODABLE
