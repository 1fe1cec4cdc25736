"""A file is replaced whole or not at all."""

import pytest

from lumbar.cache.files.atomic import atomic_file, write_atomically


def test_a_file_is_replaced_and_nothing_lies_beside_it(tmp_path):
    for data in (b"old", b"new"):
        write_atomically(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(_):
        raise InterruptedError

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(InterruptedError):
        write_atomically(path, b"new")
    with pytest.raises(ZeroDivisionError), atomic_file(path):
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
