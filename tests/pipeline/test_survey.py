"""Warnings about CSV files that are not used and about trees that look like the data set."""


def make(folder, *names):
    """Make folders and empty CSV files."""
    for name in names:
        path = folder / name
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()


def test_tables_that_are_not_used_are_named(tools, tmp_path, rsna, caplog):
    """Beside a bare tree, above it, inside of it; and in another folder than that of the images."""
    (rsna / "train_images").rename(rsna / "dicom")
    tools.run(rsna, tmp_path / "bare")
    tools.run(rsna / "dicom", tmp_path / "above")
    for message in (r.getMessage() for r in caplog.records if "survey" in r.name):
        named = [name for name in ("train.csv", "train_label_coordinates.csv") if name in message]
        assert len(named) == 2 or "looks like images of the data set" in message
    assert sum("is taken as a bare tree, without" in r.getMessage() for r in caplog.records) == 2
    caplog.clear()
    (rsna / "dicom").rename(rsna / "train_images")
    make(rsna, "old/train.csv", "test.csv")
    (rsna / "train.csv").unlink()
    tools.run(rsna, tmp_path / "moved")
    assert f"not used, for they do not lie in {rsna}: {rsna / 'old' / 'train.csv'}" in caplog.text
    assert "test.csv" not in caplog.text


def test_a_bare_tree_that_looks_like_the_data_set_is_said(tools, tmp_path, rsna, caplog):
    tools.run(rsna / "train_images" / "100", tmp_path / "study")
    assert "100 looks like images of the data set" in caplog.text
    caplog.clear()
    tools.phantom.write(tmp_path / "mine" / "a")
    tools.run(tmp_path / "mine", tmp_path / "out")
    assert caplog.text == ""
