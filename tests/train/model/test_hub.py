import logging
import socket

import pytest
from huggingface_hub import constants

from lumbar.cache.errors import InputError
from lumbar.train.model.config import ModelConfig
from lumbar.train.model.encoder import SliceEncoder
from lumbar.train.model.hub import hub_or_cache


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A hub at a port of this machine where nobody listens, and an empty local cache."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("nobody")
def test_without_a_network_the_file_of_weights_is_advised_and_no_try_repeated(caplog):
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(InputError, match=r"set model.weights=FILE, .*resnet18.*pretrained=false"),
    ):
        SliceEncoder(ModelConfig(backbone="resnet18", pretrained=True), size=(64, 64))
    assert "Retrying" not in caplog.text


@pytest.mark.usefixtures("nobody")
def test_the_cache_alone_is_looked_at_as_long_as_it_lasts(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub_or_cache() as answers:
        assert not answers
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_used(monkeypatch, nobody):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with hub_or_cache() as answers:
            assert answers
            assert not constants.HF_HUB_OFFLINE
