"""CSV files and images meet by counted keys, spelt alike where that is sure, refused where none."""

import csv
import shutil

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbar.cache.errors import InputError
from lumbar.cache.names import CELLS, SeriesType
from lumbar.cache.store import Cache
from lumbar.pipeline.events import Join
from lumbar.pipeline.source.join_csv import join_tables
from lumbar.pipeline.source.layout import Layout
from lumbar.pipeline.source.rsna_csv import CsvTables, read_points, read_tables

NAMES = ("train.csv", "train_series_descriptions.csv", "train_label_coordinates.csv")
LOST = {
    "100": ("100.0", "1.00E+02", "'100", " 100 ", "\u00a0100", "0100", "100.", '="100"'),
    "200": ("200.0", "2.00E+02", "'200", " 200 ", "\u00a0200", "0200", "200.", '="200"'),
}


def change(path, column, how):
    """Change one column of a CSV file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row[column] = how(row[column])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def tables_of(cache):
    return (
        cache.series.drop("metadata_crc32c", "config_hash"),
        cache.labels,
        cache.coordinates,
        cache.rejected,
    )


@pytest.mark.parametrize("way", range(len(LOST["100"])))
def test_ids_changed_by_a_spreadsheet_join_as_before(tools, tmp_path, rsna, caplog, way):
    before = tables_of(tools.cached(rsna, tmp_path / "before"))
    caplog.clear()
    for name in NAMES:
        change(rsna / name, "study_id", lambda text: LOST[text][way])
    finished = tools.run(rsna, tmp_path / "out")[-1]
    for mine, theirs in zip(tables_of(Cache(tmp_path / "out")), before, strict=True):
        assert mine.equals(theirs)
    # Spaces and the like are no spelling of a cell; everything else is said.
    if LOST["100"][way].strip() != "100":
        assert [join.n_repaired for join in finished.joins] == [3, 2, 3]
        for name in NAMES:
            assert f"{name}: " in caplog.text
        assert "are spelt otherwise and are taken as those of the images: " in caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_ids_that_lost_their_digits_are_refused_and_nothing_is_written(tools, tmp_path, rsna, name):
    long = {"100": "100090221", "200": "250090221"}
    for study_id, longer in long.items():
        (rsna / "train_images" / study_id).rename(rsna / "train_images" / longer)
    for csv_name in NAMES:
        change(rsna / csv_name, "study_id", long.__getitem__)
    change(rsna / name, "study_id", lambda text: f"{float(text):.1E}")
    with pytest.raises(InputError) as caught:
        tools.run(rsna, tmp_path / "out")
    assert "no row of the table belongs to any of the s" in str(caught.value)
    assert f"{rsna / name}; got" in str(caught.value)
    assert "such as 1.0E+08" in str(caught.value)
    assert "expected those of the images, such as 100090221" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_counts_of_both_sides_are_in_the_last_event(tools, tmp_path, rsna, caplog):
    tools.with_tags(StudyInstanceUID="300", SeriesInstanceUID="300.1").write(
        rsna / "train_images" / "300" / "1"
    )
    path = rsna / "train.csv"
    path.write_text(path.read_text() + "999" + "," * len(CELLS) + "\n")
    finished = tools.run(rsna, tmp_path / "out")[-1]
    assert finished.joins == (
        Join("train_series_descriptions.csv", "series", 3, 0, 1, 0),
        Join("train.csv", "studies", 2, 1, 1, 0),
        Join("train_label_coordinates.csv", "series", 3, 0, 1, 0),
    )
    assert (finished.n_points, finished.points_by_flag) == (3, {"no_slice": 1})
    assert (
        "train.csv: 1 studies of the images have no row, such as 300; 1 of the table have no "
        "images, such as 999"
    ) in caplog.text


def test_points_of_a_series_of_another_study_are_named_and_not_moved(tools, tmp_path, rsna, caplog):
    change(rsna / NAMES[2], "study_id", lambda text: "200" if text == "100" else text)
    points = tools.cached(rsna, tmp_path / "out").coordinates
    assert "points of 1 series that are of another study by the images: 200/8 (of study 100)" in (
        caplog.text
    )
    assert points.filter(pl.col("series_id") == "8")["d"].to_list() == [None]


def test_two_rows_that_mean_one_are_refused(tools, tmp_path, rsna):
    path = rsna / "train.csv"
    path.write_text(path.read_text() + "100.0" + "," * len(CELLS) + "\n")
    with pytest.raises(InputError, match=r"two rows of one study.*100 and 100\.0, which both mean"):
        tools.run(rsna, tmp_path / "out")
    path = rsna / NAMES[1]
    path.write_text(path.read_text() + "100.0,7,Sagittal T1\n")
    with pytest.raises(InputError, match=r"two rows of one series.*100/7 and 100\.0/7"):
        tools.run(rsna, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_of_other_studies_than_the_images_are_refused(tools, tmp_path, rsna):
    change(rsna / "train.csv", "study_id", lambda text: f"9{text}")
    with pytest.raises(InputError, match=r"got 2 studies such as 9100, 9200; expected those of"):
        tools.run(rsna, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_of_no_row_and_one_of_vanished_series_are_no_mistake(tools, tmp_path, rsna):
    tools.run(rsna, tmp_path / "out")
    for study_id, keep in (("100", "7"), ("200", "none")):
        for folder in (rsna / "train_images" / study_id).iterdir():
            if folder.name != keep:
                shutil.rmtree(folder)
    path = rsna / NAMES[2]
    path.write_text("\n".join([path.read_text().splitlines()[0], path.read_text().splitlines()[3]]))
    finished = tools.run(rsna, tmp_path / "out")[-1]
    assert finished.n_vanished == 2
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert tools.run(rsna, tmp_path / "out")[-1].joins[-1] == Join(NAMES[2], "series", 0, 0, 3, 0)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.integers(10**6, 10**9).map(str),
        st.sets(st.integers(1, 10**9).map(str), min_size=1, max_size=3),
        min_size=2,
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_mangled_keys_mean_the_series_of_the_images(tmp_path_factory, studies, random):
    """Each id in a spelling of its own, the rows in any order."""
    root = tmp_path_factory.mktemp("keys")
    spell = (str, "{}.0".format, " {}".format, "'{}".format, "{}.".format)
    keys = [(study, series) for study, found in studies.items() for series in found]
    random.shuffle(keys)
    rows = [(random.choice(spell)(study), random.choice(spell)(series)) for study, series in keys]
    (root / "train_series_descriptions.csv").write_text(
        "study_id,series_id,series_description\n" + "".join(f"{a},{b},Axial T2\n" for a, b in rows)
    )
    layout = Layout(root / "train_images", "train", root)
    tables, (join,) = join_tables(read_tables(layout), layout, keys)
    assert set(tables.types) == set(keys)
    assert (join.n_matched, join.n_only_in_csv, join.n_only_in_images) == (len(keys), 0, 0)


def test_without_images_nothing_is_compared(tmp_path):
    tables = CsvTables({("1", "2"): SeriesType.AXIAL_T2}, None, None)
    assert join_tables(tables, Layout(tmp_path, "train", tmp_path), []) == (tables, ())


def test_names_and_numbers_that_are_spelt_otherwise_are_taken(tmp_path, caplog):
    path = tmp_path / "points.csv"
    path.write_text(
        "study_id,series_id, instance_number ,condition,level,x,y\n"
        "1,2,6.0,left_neural_foraminal_narrowing,l1_l2,4,5\n"
        "1,2,7,Left Neural Foraminal Narrowing,L1-L2,4,5\n"
    )
    points = read_points(path)
    assert points["instance_number"].to_list() == [6, 7]
    assert points["level"].to_list() == ["l1_l2"] * 2
    assert points["condition"].to_list() == ["left_neural_foraminal_narrowing"] * 2
    assert "instance_number: '6.0' is taken as 6" in caplog.text
    assert "level: 'l1_l2' is taken as 'L1/L2'" in caplog.text
    path.write_text(path.read_text().replace("6.0", "6.5"))
    with pytest.raises(InputError, match=r"instance_number is not a whole number.*'6\.5'"):
        read_points(path)
