"""A decoder that is broken is named, be it the one in use or the one behind it."""

import pytest

from lumbar.doctor.checks import DECODERS
from lumbar.doctor.host import decoders
from lumbar.doctor.host.decoders import check_decoder, check_gpu_decoder
from lumbar.pipeline.dicom import codecs
from lumbar.pipeline.dicom.codestream import JPEG_LS
from lumbar.pipeline.reject import Reason, RejectedError

CPU = None


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_of_this_machine_give_the_values(name):
    assert check_decoder(name).state == "pass"


def broken_fast(monkeypatch, decode):
    monkeypatch.setattr(codecs, "_FAST", codecs._FAST | dict.fromkeys(JPEG_LS, decode))


def test_decoder_that_gives_other_values(monkeypatch):
    genuine = codecs._FAST["1.2.840.10008.1.2.4.80"]
    broken_fast(monkeypatch, lambda frame: genuine(frame) + 3)
    found = check_decoder("JPEG-LS")
    assert found.state == "fail"
    assert found.found == "transfer syntax 1.2.840.10008.1.2.4.80: values differ by up to 3"
    assert "--reinstall imagecodecs" in found.cure
    assert check_decoder("JPEG 2000").state == "pass"


def test_decoder_that_fails_while_the_one_behind_it_works(monkeypatch):
    def fail(_):
        raise OSError

    broken_fast(monkeypatch, fail)
    assert check_decoder("JPEG-LS").found.endswith("imagecodecs does not decode it")


def test_decoder_behind_the_fast_one_that_fails(monkeypatch):
    def fail(*_):
        raise RejectedError(Reason.UNDECODABLE, "no library")

    monkeypatch.setattr(codecs, "_decode_by_pydicom", fail)
    # JPEG with loss is pydicom's own task; what is asked last still gives its values.
    for name in ("RLE", "JPEG"):
        assert check_decoder(name).found.endswith("pydicom does not decode it")


def test_gpu_decoder_that_is_not_installed_is_not_measured(monkeypatch):
    monkeypatch.setattr(decoders, "find_spec", lambda _: None)
    found = check_gpu_decoder(CPU)
    assert found.state == "not measured"
    assert "not installed" in found.found


@pytest.mark.parametrize(("problem", "state"), [("", "pass"), ("no picture", "fail")])
def test_gpu_decoder_is_the_probe_of_preprocess(monkeypatch, problem, state):
    monkeypatch.setattr(decoders, "find_spec", lambda _: True)
    monkeypatch.setattr(decoders, "find_gpu_problem", lambda: problem)
    found = check_gpu_decoder(CPU)
    assert found.state == state
    assert problem in found.found
