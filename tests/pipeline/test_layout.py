"""What the source folder is taken for."""

import pytest

from lumbar.cache.errors import InputError, MissingError
from lumbar.pipeline.config import PreprocessConfig
from lumbar.pipeline.layout import find_layout


@pytest.fixture
def root(tmp_path):
    for name in ("train_images", "test_images"):
        (tmp_path / name).mkdir()
    for name in ("train.csv", "train_series_descriptions.csv", "test_series_descriptions.csv"):
        (tmp_path / name).touch()
    return tmp_path


def test_train_comes_first_and_test_when_it_is_asked_for(root):
    train, test = find_layout(root, None), find_layout(root, "test")
    assert (train.split, train.images) == ("train", root / "train_images")
    assert train.labels_csv == root / "train.csv"
    assert train.coordinates_csv is None
    assert (test.split, test.images) == ("test", root / "test_images")
    assert test.labels_csv is None
    assert test.series_csv == root / "test_series_descriptions.csv"


def test_images_folder_finds_the_tables_beside_it(root):
    layout = find_layout(root / "test_images", None)
    assert (layout.split, layout.images) == ("test", root / "test_images")
    assert layout.series_csv == root.resolve() / "test_series_descriptions.csv"


def test_any_other_folder_is_a_bare_tree(tmp_path):
    (tmp_path / "train.csv").touch()
    layout = find_layout(tmp_path, None)
    assert (layout.split, layout.images, layout.labels_csv) == (None, tmp_path, None)


def test_what_is_not_there_is_refused(tmp_path, root):
    with pytest.raises(MissingError, match=r"got nothing.*check --src"):
        find_layout(tmp_path / "nowhere", None)
    with pytest.raises(MissingError, match="got a file"):
        find_layout(root / "train.csv", None)
    (root / "test_images").rmdir()
    with pytest.raises(InputError, match=r"no split test.*a folder test_images"):
        find_layout(root, "test")


@pytest.mark.parametrize(
    "options",
    [
        {"grid": "spacing"},
        {"spacing_mm": 1.0},
        {"percentiles": (99, 1)},
        {"percentiles": (-1, 99)},
        {"size": 0},
        {"dtype": "float32"},
        {"colour": "blue"},
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(options):
    with pytest.raises(ValueError, match="PreprocessConfig"):
        PreprocessConfig(**options)
