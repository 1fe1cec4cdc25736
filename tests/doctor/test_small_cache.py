"""A cache whose bytes are not those that were written is found, as is one that is not whole."""

from lumbar.doctor.host import small_cache
from lumbar.doctor.host.small_cache import STUDIES, check_cache


def test_flipped_byte(monkeypatch):
    genuine = small_cache._write

    def write(folder):
        root = genuine(folder)
        chunk = next((root / "volumes.zarr").rglob("c/0/0/0"))
        data = bytearray(chunk.read_bytes())
        data[100] ^= 1
        chunk.write_bytes(data)
        return root

    monkeypatch.setattr(small_cache, "_write", write)
    found = check_cache()
    assert found.state == "fail"
    assert "test the disk and the memory" in found.cure


def test_series_that_are_missing(monkeypatch):
    monkeypatch.setattr(small_cache, "SynthConfig", lambda **options: _fewer(options))
    found = check_cache()
    assert found.state == "fail"
    assert found.found == f"{STUDIES - 1} of {STUDIES} generated series are in the cache"


def _fewer(options):
    from lumbar.synth.dataset import SynthConfig  # noqa: PLC0415

    return SynthConfig(**(options | {"studies": STUDIES - 1}))
