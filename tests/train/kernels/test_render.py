"""Compiled functions are cached on disk; without a folder the error names the cure."""

import pytest
from numba import njit
from numba.core import caching

from lumbar.cache.errors import LumbarError
from lumbar.train.kernels.render import kept_on_disk


def add(a, b):
    return a + b


def test_without_a_folder_to_write_to_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(caching.FunctionCache._impl_class, "_locator_classes", [])
    with pytest.raises(LumbarError, match="NUMBA_CACHE_DIR") as caught, kept_on_disk():
        njit(cache=True)(add)
    assert "no locator available" in str(caught.value.__cause__)


def test_other_errors_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), kept_on_disk():
        _ = 1 / 0
    error = RuntimeError("another")
    with pytest.raises(RuntimeError) as caught, kept_on_disk():
        raise error
    assert caught.value is error
