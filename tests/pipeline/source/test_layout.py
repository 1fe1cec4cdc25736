"""The layout of a source folder."""

import zipfile

import pytest

from lumbar.cache.errors import InputError, MissingError
from lumbar.pipeline.source.layout import find_layout


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


def make(folder, *names):
    """Make folders and empty CSV files."""
    for name in names:
        path = folder / name
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()


@pytest.mark.parametrize("below", ["", "data/", "data/rsna-2024/"])
@pytest.mark.parametrize("name", ["train_images", "Train_Images", "TRAIN_IMAGES"])
def test_the_root_is_found_below_and_in_capitals(tmp_path, caplog, below, name):
    make(tmp_path, f"{below}{name}/100/7", f"{below}Train.CSV", "notes/deep/deeper")
    layout = find_layout(tmp_path, None)
    assert (layout.images, layout.split) == (tmp_path / below / name, "train")
    assert layout.labels_csv == tmp_path / below / "Train.CSV"
    said = below != "" or name != "train_images"
    assert (str(layout.images) in caplog.text) == said


def test_tables_of_the_source_go_with_images_further_down(tmp_path, caplog):
    make(tmp_path, "train.csv", "all/train_images/100/7")
    layout = find_layout(tmp_path, None)
    assert layout.labels_csv == tmp_path / "train.csv"
    assert f"from {layout.images}, with the CSV files in {tmp_path}" in caplog.text


def test_of_two_roots_none_is_taken(tmp_path):
    make(tmp_path, "a/train_images/1/2", "b/c/train_images/1/2")
    with pytest.raises(
        InputError, match=r"several data sets.*a/train_images, .*b/c/train_images; "
    ):
        find_layout(tmp_path, None)
    # The half that comes first decides, as beside each other.
    make(tmp_path, "d/test_images/1/2")
    assert find_layout(tmp_path, "test").images == tmp_path / "d" / "test_images"
    assert find_layout(tmp_path, None, first="test").images == tmp_path / "d" / "test_images"


def test_a_doubled_folder_is_taken_inside(tmp_path, caplog):
    make(tmp_path, "train_images/train_images/100/7", "train_images/__MACOSX/100", "train.csv")
    layout = find_layout(tmp_path, None)
    assert layout.images == tmp_path / "train_images" / "train_images"
    assert layout.labels_csv == tmp_path / "train.csv"
    assert f"taken from {layout.images}" in caplog.text


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("train_images.zip", "100/7/1.dcm"),
        ("Test_Images.ZIP", "100/7/1.dcm"),
        ("rsna-2024.zip", "train_images/100/7/1.dcm"),
        ("rsna-2024.zip", "rsna/test_images/100/7/1.dcm"),
        ("down/train_images.zip", "100/7/1.dcm"),
        ("two/down/rsna-2024.zip", "train_images/100/7/1.dcm"),
    ],
)
def test_a_packed_data_set_is_refused_with_what_to_do(tmp_path, name, member):
    make((tmp_path / name).parent, "train.csv")
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr(member, b"x")
    with pytest.raises(InputError, match=r"are packed.*unpack it, and name the folder") as caught:
        find_layout(tmp_path, None)
    assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(MissingError, match=r"got an archive; expected a folder.*unpack it"):
        find_layout(tmp_path / name, None)


def test_other_archives_are_files_of_a_bare_tree(tmp_path):
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("my_train_images/1.dcm", b"x")
    assert find_layout(tmp_path, None).split is None


def test_an_archive_below_without_tables_beside_it_is_not_looked_into(tmp_path):
    make(tmp_path, "down/notes.csv")
    with zipfile.ZipFile(tmp_path / "down" / "study.zip", "w") as archive:
        archive.writestr("train_images/100/7/1.dcm", b"x")
    assert find_layout(tmp_path, None).split is None


def test_two_spellings_of_one_folder_are_named(tmp_path):
    make(tmp_path, "Train_Images/1/2", "TRAIN_IMAGES/1/2")
    with pytest.raises(InputError, match=r"several data sets.*TRAIN_IMAGES, .*Train_Images; "):
        find_layout(tmp_path, None)
