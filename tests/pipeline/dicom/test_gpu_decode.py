"""``--decode gpu``: only after CUDA has shown itself, and the CPU's decoders stand behind it."""

from functools import partial

import numpy as np
import pytest
from fixtures.dicom import LOSSLESS, compressed, tree
from imagecodecs import jpeg2k_encode

from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.dicom import codecs
from lumbar.pipeline.dicom import gpu_decode as gpu
from lumbar.pipeline.dicom.decode import decode

PICTURE = (np.arange(64 * 48, dtype=np.uint16).reshape(64, 48) * 37) % 4096
FRAMES = {number: LOSSLESS[number](PICTURE, 12) for number in ("70", "90", "201")}
CPU_ONLY = -99999
"""nvImageCodec's number of no device (NVIMGCODEC_DEVICE_CPU_ONLY)."""
ROUNDED = jpeg2k_encode(PICTURE, codecformat="j2k", reversible=False, level=80, bitspersample=12)


def dataset_of(number, frame):
    return compressed(PICTURE, frame, number, 12)


@pytest.fixture
def fresh_check():
    gpu.find_gpu_problem.cache_clear()
    yield
    gpu.find_gpu_problem.cache_clear()


@pytest.mark.usefixtures("fresh_check")
def test_without_a_driver_the_reason_says_so(monkeypatch):
    monkeypatch.setattr(gpu, "_CUDA_LIBRARY", "libno-such-driver.so.1")
    assert gpu.find_gpu_problem() == "no CUDA driver: libno-such-driver.so.1 is not there"


@pytest.mark.parametrize(
    ("start", "count", "message"),
    [
        (999, (0, 1), "does not start: error 999"),
        (0, (0, 0), "no device"),
        (0, (3, 1), "no device"),
    ],
)
@pytest.mark.usefixtures("fresh_check")
def test_driver_that_is_there_and_does_not_work(monkeypatch, start, count, message):
    class Driver:
        def cuInit(self, _):  # noqa: N802
            return start

        def cuDeviceGetCount(self, found):  # noqa: N802
            found._obj.value = count[1]
            return count[0]

    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda _: Driver())
    assert message in gpu.find_gpu_problem()


@pytest.mark.usefixtures("fresh_check")
def test_plugin_that_fails_after_all_is_a_reason_and_no_traceback(monkeypatch):
    """The driver answers, but nvImageCodec gives no picture back on this machine's terms."""
    monkeypatch.setattr(gpu, "_find_cuda_problem", lambda: "")

    def fail(*_, **__):
        message = "no codec"
        raise RuntimeError(message)

    monkeypatch.setattr(gpu.imagecodecs, "jpeg2k_encode", fail)
    assert gpu.find_gpu_problem() == "RuntimeError: no codec"


@pytest.mark.parametrize("restricted", [True, False])
@pytest.mark.usefixtures("fresh_check")
def test_cpu_back_ends_do_not_pass_for_a_gpu(monkeypatch, restricted):
    """nvImageCodec, told to use no GPU, decodes the picture by a back end of the CPU's."""
    nvimgcodec = pytest.importorskip("nvidia.nvimgcodec")
    monkeypatch.setattr(gpu, "_find_cuda_problem", lambda: "")
    decoder = partial(nvimgcodec.Decoder, device_id=CPU_ONLY)
    monkeypatch.setattr(nvimgcodec, "Decoder", decoder)
    if not restricted:
        monkeypatch.setattr(gpu, "_gpu_kinds", lambda: [nvimgcodec.BackendKind.CPU_ONLY])
    assert bool(gpu.find_gpu_problem()) == restricted


@pytest.mark.parametrize("number", FRAMES)
def test_frame_that_the_gpu_refuses_is_decoded_by_the_cpu(monkeypatch, number):
    """Here without a GPU the plugin is not registered, so that pydicom refuses its name."""
    asked = []
    genuine = codecs.decode_on_gpu

    def ask(*arguments):
        asked.append(number)
        return genuine(*arguments)

    monkeypatch.setattr(codecs, "decode_on_gpu", ask)
    found = decode(dataset_of(number, FRAMES[number]), 0, on_gpu=True).values
    assert asked == [number]
    assert np.array_equal(found, PICTURE)


def test_frame_that_is_rounded_stays_with_the_cpu(monkeypatch):
    monkeypatch.setattr(codecs, "decode_on_gpu", lambda *_: pytest.fail("the GPU was asked"))
    expected = decode(dataset_of("91", ROUNDED), 0).values
    assert np.array_equal(decode(dataset_of("91", ROUNDED), 0, on_gpu=True).values, expected)


SIGNED = ((np.arange(64 * 48).reshape(64, 48) * 37) % 4096 - 2048).astype(np.int16)


@pytest.mark.parametrize("number", FRAMES)
def test_values_of_the_gpu_get_the_sign_and_the_bits_of_the_header(monkeypatch, number):
    """The codestream has no sign: a decoder that follows it gives 4095 for -1."""
    frame = LOSSLESS[number](SIGNED.view(np.uint16) & np.uint16(4095), 12)
    dataset = dataset_of(number, frame)
    dataset.PixelRepresentation = 1
    of_stream = SIGNED & 4095
    monkeypatch.setattr(codecs, "decode_on_gpu", lambda *_: of_stream)
    monkeypatch.setattr(codecs, "_decode_fast", lambda *_: pytest.fail("the CPU was asked"))
    assert np.array_equal(decode(dataset, 0, on_gpu=True).values, SIGNED)


@pytest.mark.parametrize("number", FRAMES)
def test_picture_of_another_shape_from_the_gpu_is_decoded_by_the_cpu(monkeypatch, number):
    monkeypatch.setattr(codecs, "decode_on_gpu", lambda *_: PICTURE[None])
    found = decode(dataset_of(number, FRAMES[number]), 0, on_gpu=True).values
    assert np.array_equal(found, PICTURE)


def test_installed_plugin_has_the_name_that_is_asked_for():
    plugin = pytest.importorskip("nvidia.nvimgcodec.tools.dicom.pydicom_plugin")
    assert plugin.NVIMGCODEC_PLUGIN_LABEL == gpu.GPU_PLUGIN
    assert {str(uid) for uid in plugin.SUPPORTED_TRANSFER_SYNTAXES} >= gpu.GPU_SYNTAXES


@pytest.mark.gpu
@pytest.mark.skipif(bool(gpu._find_cuda_problem()), reason="no GPU of NVIDIA is here")
@pytest.mark.parametrize("number", FRAMES)
def test_gpu_gives_the_values_of_the_cpu(number):
    assert gpu.find_gpu_problem() == ""
    dataset = dataset_of(number, FRAMES[number])
    found = codecs.decode_on_gpu(dataset, 0, dataset.file_meta.TransferSyntaxUID)
    assert found is not None
    assert np.array_equal(found, PICTURE)


@pytest.mark.usefixtures("fresh_check")
def test_run_without_a_gpu_says_so_and_gives_the_bytes_of_the_cpu(
    tools, tmp_path, monkeypatch, caplog
):
    """In worker processes, whose check is their own; no trace of the option stays in the cache."""
    monkeypatch.setattr(gpu, "_CUDA_LIBRARY", "libno-such-driver.so.1")
    tools.phantom.write(tmp_path / "src", rle=True)
    contents = []
    for decoder, workers in (("cpu", 0), ("gpu", 0), ("gpu", 1)):
        out = tmp_path / f"out-{decoder}-{workers}"
        tools.run(tmp_path / "src", out, PreprocessConfig(decode=decoder), workers=workers)
        contents.append(tree(out))
    assert contents[0] == contents[1] == contents[2]
    assert len(contents[0]) > 5
    (message,) = {record.getMessage() for record in caplog.records}
    assert message == (
        "--decode gpu: the CPU decodes, for no CUDA driver: libno-such-driver.so.1 is not there"
    )
