from pathlib import Path

import pytest

from lumbar.cache.errors import InputError
from lumbar.cache.files.writable import require_file_place, require_folder_place


def test_missing_folders_are_no_hindrance_and_nothing_is_left(tmp_path):
    require_file_place(tmp_path / "a" / "b" / "submission.csv")
    require_folder_place(tmp_path / "c" / "d")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays_as_it_is(tmp_path):
    file = tmp_path / "submission.csv"
    file.write_text("mine")
    require_file_place(file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("require", [require_file_place, require_folder_place])
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, require):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(InputError, match=r"Not a directory.*nothing has been computed yet"):
        require(in_the_way / "inside" / "out")
    with pytest.raises(InputError, match=r"cannot be written: /proc/"):
        require(Path("/proc/nothing/out"))


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path):
    with pytest.raises(InputError, match=r"got a folder"):
        require_file_place(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match=r"got a file; expected a folder"):
        require_folder_place(file)
