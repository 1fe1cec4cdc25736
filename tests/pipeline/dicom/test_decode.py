"""Every transfer syntax that MR comes in, every way to lay bits and fragments: the same values."""

import struct

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lumbar.pipeline.dicom import codecs, decode
from lumbar.pipeline.dicom.codestream import read_codestream
from lumbar.pipeline.dicom.parse import parse
from lumbar.pipeline.reject import Reason, RejectedError

PREFIX = "1.2.840.10008.1.2.4."


def lossless_jpeg(predictor):
    return lambda a, bits: imagecodecs.jpeg8_encode(
        a, lossless=True, predictor=predictor, bitspersample=bits
    )


def jpeg_2000(a, bits):
    return imagecodecs.jpeg2k_encode(a, codecformat="j2k", reversible=True, bitspersample=bits)


LOSSLESS = {
    "57": lossless_jpeg(6),
    "70": lossless_jpeg(1),
    "80": lambda a, bits: imagecodecs.jpegls_encode(a),
    "90": jpeg_2000,
    "91": jpeg_2000,
    "201": lambda a, bits: imagecodecs.htj2k_encode(a, reversible=True),
    "202": lambda a, bits: imagecodecs.htj2k_encode(a, reversible=True, tlm=True),
    "203": lambda a, bits: imagecodecs.htj2k_encode(a, reversible=True),
}
"""How to encode without loss, by the last number of the transfer syntax."""

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


def smooth(bits, rows=37, columns=46, *, signed=False):
    """Return a picture that uses all of its bits, smooth enough to be compressed."""
    row, column = np.mgrid[:rows, :columns]
    wave = np.sin(row / 7) * np.cos(column / 9) + np.sin(row * column / 300) / 9
    wave = (wave - wave.min()) / np.ptp(wave) * (2**bits - 1)
    low = 2 ** (bits - 1) if signed else 0
    kind = "i" if signed else "u"
    return (np.rint(wave) - low).astype(f"{kind}{1 if bits <= 8 else 2}")


def described(values, *, stored, syntax, data):
    dataset = pydicom.Dataset()
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * values.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = stored, stored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = data
    dataset["PixelData"].is_undefined_length = UID(syntax).is_encapsulated
    return dataset


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
    dataset = described(
        expected, stored=bits, syntax=PREFIX + number, data=encapsulate([bytes(frame)])
    )
    found = decode.decode(dataset, 0).values
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.usefixtures("no_slow_decoder")
def test_jpeg_2000_that_knows_its_sign(bits):
    expected = smooth(bits, signed=True)
    frame = jpeg_2000(expected, bits)
    dataset = described(expected, stored=bits, syntax=PREFIX + "90", data=encapsulate([frame]))
    assert read_codestream(frame, PREFIX + "90").is_signed
    assert np.array_equal(decode.decode(dataset, 0).values, expected)


@pytest.mark.parametrize("number", LOSSY)
def test_lossy_frames_are_nearly_the_picture_and_pydicoms(number):
    encode, bits = LOSSY[number]
    expected = smooth(bits)
    frame = bytes(encode(expected))
    dataset = described(expected, stored=bits, syntax=PREFIX + number, data=encapsulate([frame]))
    found = decode.decode(dataset, 0).values
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
def test_bits_above_the_value_say_nothing(bits, signed, rle):
    """Overlays and scratch values of scanners lie above BitsStored; the sign is below them."""
    expected = smooth(bits, signed=signed).astype("i2" if signed else "u2")
    rng = np.random.default_rng(bits)
    noise = rng.integers(0, 2**16, expected.shape, np.uint16) << np.uint16(bits % 16)
    noise = noise if bits < 16 else np.zeros_like(noise)
    stored = unsigned(expected, bits) | noise
    assert bits == 16 or not np.array_equal(stored.view(expected.dtype), expected)
    dataset = described(stored, stored=16, syntax=ExplicitVRLittleEndian, data=stored.tobytes())
    if rle:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    assert np.array_equal(decode.decode(dataset, 0).values, expected)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.usefixtures("no_slow_decoder")
def test_rle_of_one_byte_a_pixel(signed):
    expected = smooth(8, 37, 41, signed=signed)
    data = expected.tobytes() + b"\0"
    dataset = described(expected, stored=8, syntax=ExplicitVRLittleEndian, data=data)
    dataset.compress(RLELossless, expected, generate_instance_uid=False)
    found = decode.decode(dataset, 0).values
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.usefixtures("no_slow_decoder")
def test_every_predictor_of_lossless_jpeg(predictor):
    expected = smooth(12)
    frame = bytes(lossless_jpeg(predictor)(expected, 12))
    dataset = described(expected, stored=12, syntax=PREFIX + "57", data=encapsulate([frame]))
    assert np.array_equal(decode.decode(dataset, 0).values, expected)


@pytest.mark.usefixtures("no_slow_decoder")
def test_jpeg_2000_in_boxes_is_read_though_the_standard_forbids_them():
    expected = smooth(12)
    frame = imagecodecs.jpeg2k_encode(
        expected, codecformat="jp2", reversible=True, bitspersample=12
    )
    assert frame[4:8] == b"jP  "
    dataset = described(expected, stored=12, syntax=PREFIX + "90", data=encapsulate([frame]))
    assert np.array_equal(decode.decode(dataset, 0).values, expected)


NATIVE = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("name", NATIVE)
def test_plain_pixels_of_every_encoding(tools, tmp_path, name, bits):
    """One phantom written in each encoding is one volume; of eight bits, big-endian is in words."""

    def shrink(dataset, index):
        values = smooth(bits, 48, 40) // (index + 1)
        dataset.PixelData = values.tobytes()
        dataset.BitsAllocated = 8 * values.dtype.itemsize
        dataset.BitsStored, dataset.HighBit = bits, bits - 1

    def encode(dataset, index):
        shrink(dataset, index)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = NATIVE[name]
        if name == "big-endian":
            data = np.frombuffer(dataset.PixelData, "u2").byteswap().tobytes()
            dataset.add_new("PixelData", "OW", data)
        target = tmp_path / "src" / f"{index}.of-any-name"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"")
        pydicom.dcmwrite(
            target,
            dataset,
            enforce_file_format=True,
            implicit_vr=name == "implicit",
            little_endian=name != "big-endian",
        )

    for index in range(7):
        dataset = tools.phantom.dataset(index)
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        encode(dataset, index)
    tools.phantom.write(tmp_path / "plain", edit=shrink)
    found = tools.cached(tmp_path / "src", tmp_path / "out")
    expected = tools.cached(tmp_path / "plain", tmp_path / "out-plain")
    assert found.series["transfer_syntax"].to_list() == [NATIVE[name]]
    assert found.rejected.is_empty()
    assert np.array_equal(found.volume(0), expected.volume(0))


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
        assert np.array_equal(decode.decode(dataset, index).values, one)


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
        assert np.array_equal(decode.decode(dataset, index).values, one)


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
    found = tools.cached(tmp_path / "src", tmp_path / "out")
    expected = tools.cached(tmp_path / "plain", tmp_path / "out-plain")
    assert np.array_equal(found.volume(0), expected.volume(0))


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
        decode.decode(dataset, 0)
    assert caught.value.reason is Reason.UNDECODABLE
    assert not asked


def test_frame_of_several_components_is_refused():
    frame = imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8))
    dataset = described(
        smooth(8, 16, 16), stored=8, syntax=PREFIX + "50", data=encapsulate([bytes(frame)])
    )
    with pytest.raises(RejectedError, match="of 3 components"):
        decode.decode(dataset, 0)


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
    assert np.array_equal(decode.decode(dataset, 0).values, expected)


@pytest.mark.parametrize("number", ["50", "57", "80", "90", "201"])
@pytest.mark.parametrize("cut", [1, 3, 20])
def test_frame_that_ends_in_its_header_is_named(number, cut):
    encode = LOSSLESS.get(number) or (lambda a, bits: imagecodecs.jpeg8_encode(a >> 4))
    values = smooth(12, 16, 16)
    frame = bytes(encode(values, 12))[:cut]
    dataset = described(values, stored=12, syntax=PREFIX + number, data=encapsulate([frame]))
    with pytest.raises(RejectedError) as caught:
        decode.decode(dataset, 0)
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
    dataset = described(
        values,
        stored=bits,
        syntax=PREFIX + number,
        data=encapsulate([frame[: int(len(frame) * share)]]),
    )
    with pytest.raises(RejectedError) as caught:
        decode.decode(dataset, 0)
    assert caught.value.reason in {Reason.TRUNCATED, Reason.UNDECODABLE}


@pytest.mark.parametrize("number", ["57", "80", "90", "201"])
@pytest.mark.parametrize("tail", [b"\0", b"\xff", b"\0" * 40])
@pytest.mark.usefixtures("no_slow_decoder")
def test_bytes_behind_the_end_of_a_frame_say_nothing(number, tail):
    values = smooth(12, 64, 64)
    frame = bytes(LOSSLESS[number](values, 12)) + tail
    dataset = described(values, stored=12, syntax=PREFIX + number, data=encapsulate([frame]))
    assert np.array_equal(decode.decode(dataset, 0).values, values)


def test_modality_table_is_applied(tools, tmp_path):
    """A LUT sequence instead of slope and intercept: stored 0..3 are 0, 10, 500 and 1000."""

    def add_table(dataset, index):
        item = pydicom.Dataset()
        item.LUTDescriptor, item.ModalityLUTType = [4, 0, 16], "US"
        item.LUTData = np.array([0, 10, 500, 1000], "<u2").tobytes()
        dataset.ModalityLUTSequence = [item]
        values = np.arange(48 * 40).reshape(48, 40) % 4
        dataset.PixelData = values.astype(np.uint16).tobytes()

    tools.phantom.write(tmp_path / "src", edit=add_table)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    window = cache.attributes(0).window
    assert (window.low, window.high) == (0, 1000)
    # The phantom's rows run along +y and down: the picture is stored as it is.
    row = cache.volume(0)[3, 0, :4] / 32767 * 1000
    assert row == pytest.approx([0, 10, 500, 1000], abs=0.02)


TABLE = [(-5, 900), (-3, 900), (-2, 700), (-1, 400), (0, 90), (7, 90)]
"""Values and what the table below makes of them: it begins at -3, and its ends go on."""


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_modality_table_that_begins_below_zero_comes_before_the_turning_round(photometric):
    """MONOCHROME1 says how the table's values are shown, not the stored ones (PS3.3, C.7.6.3)."""
    stored, expected = np.array(TABLE).reshape(1, -1, 2).transpose(2, 0, 1)
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4, -3, 10], "US"
    item.LUTData = [900, 700, 400, 90]
    data = stored.astype("<i2").tobytes()
    dataset = described(
        stored.astype(np.int16), stored=12, syntax=ExplicitVRLittleEndian, data=data
    )
    dataset.ModalityLUTSequence, dataset.PhotometricInterpretation = [item], photometric
    wanted = expected if photometric == "MONOCHROME2" else 1023 - expected
    assert decode.decode(dataset, 0).values.tolist() == wanted.tolist()


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("name", ["implicit", "explicit", "big-endian"])
def test_modality_table_from_a_file(tmp_path, name, vr, bits):
    """Its words lie in the order of the file's bytes; those of eight bits may be packed."""
    entries = np.array([9, 250, 3, 77], "u2")
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4, -1, bits], "US"
    order = ">" if name == "big-endian" else "<"
    packed = entries.astype("u1") if bits == 8 else entries.astype(f"{order}u2")
    item.add_new("LUTData", vr, entries.tolist() if vr == "US" else packed.tobytes())
    stored = np.array([[-2, -1], [0, 1], [2, 9]], "i2")
    dataset = described(
        stored, stored=16, syntax=NATIVE[name], data=stored.astype(f"{order}i2").tobytes()
    )
    dataset.ModalityLUTSequence = [item]
    dataset.preamble, dataset.SOPClassUID = bytes(128), "1.2.840.10008.5.1.4.1.1.4"
    dataset.save_as(tmp_path / "file", enforce_file_format=False)
    found = decode.decode(parse((tmp_path / "file").read_bytes()), 0).values
    assert found.tolist() == [[9, 9], [250, 3], [77, 77]]


@pytest.mark.parametrize("descriptor", [[5, 0, 12], [4, 0, 0], [4, 0, 17]])
def test_modality_table_that_is_none_is_refused(descriptor):
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = descriptor, [1, 2, 3, 4]
    values = smooth(12)
    dataset = described(values, stored=12, syntax=ExplicitVRLittleEndian, data=values.tobytes())
    dataset.ModalityLUTSequence = [item]
    with pytest.raises(RejectedError, match="modality table of 4 of") as caught:
        decode.decode(dataset, 0)
    assert caught.value.reason is Reason.UNSUPPORTED_PIXELS


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_signed_pixels_are_turned_round_within_their_bits(bits):
    stored = smooth(bits, signed=True)
    dataset = described(stored, stored=bits, syntax=ExplicitVRLittleEndian, data=stored.tobytes())
    dataset.PhotometricInterpretation = "MONOCHROME1"
    found = decode.decode(dataset, 0).values
    assert found.dtype == stored.dtype
    assert np.array_equal(found, -1 - stored.astype(int))


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("rle", [False, True], ids=["raw", "rle"])
def test_range_of_padding_in_a_file(tools, tmp_path, rle, signed):
    """From value to limit, either being the lower one; values beside the range are no padding."""
    first, last = (-2000, -1990) if signed else (60, 50)

    def pad(dataset, index):
        picture = (tools.phantom.picture(index).astype(int) - 19000) // 2 + 100
        picture[:, :5], picture[:, 5:8] = first, (first + last) // 2
        picture[:2, 8] = min(first, last) - 1, max(first, last) + 1
        dataset.PixelRepresentation = int(signed)
        dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = first, last
        dataset.PixelData = picture.astype(np.int16).tobytes()

    tools.phantom.write(tmp_path / "src", edit=pad, rle=rle)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    window, volume = cache.attributes(0).window, np.asarray(cache.volume(0))
    assert window.low == min(first, last) - 1
    assert not volume[:, :, :8].any()
    assert (volume[:, 1:, 8:] > 0).all()


@pytest.mark.parametrize("rle", [False, True], ids=["raw", "rle"])
def test_inverted_pixels_of_twelve_bits_with_padding(tools, tmp_path, rle):
    """MONOCHROME1 is turned round within BitsStored; padding is found before that."""

    def invert(dataset, index):
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.BitsStored, dataset.HighBit = 12, 11
        picture = 4000 - (tools.phantom.picture(index) - 19000) // 10
        picture[:, 30:] = 4095
        dataset.PixelPaddingValue = 4095
        dataset.PixelData = picture.astype(np.uint16).tobytes()

    tools.phantom.write(tmp_path / "src", edit=invert, rle=rle)
    cache = tools.cached(tmp_path / "src", tmp_path / "out")
    window = cache.attributes(0).window
    expected = 95 + (tools.phantom.picture(0).min() - 19000) // 10
    assert window.low == expected
    volume = np.asarray(cache.volume(0))
    assert not volume[:, :, 30:].any()
    assert volume[6, 0, 0] == 32767


def test_meta_group_alone_is_no_image(tmp_path):
    dataset = replace_meta(tmp_path)
    with pytest.raises(RejectedError, match="no element"):
        parse(dataset)


def replace_meta(tmp_path):
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.preamble = bytes(128)
    dataset.save_as(tmp_path / "meta", enforce_file_format=False)
    return (tmp_path / "meta").read_bytes()
