import numpy as np

from lumbar.cache.names import (
    CELLS,
    CONDITION_GROUPS,
    CONDITIONS,
    EXCHANGED_CELLS,
    KNOWN_COLUMNS,
    LEVELS,
    SEVERITIES,
    SHOWN_CONDITIONS,
    TARGET_COLUMNS,
    SeriesType,
    cell_index,
)


def test_targets_are_ordered_by_condition_then_level_then_severity():
    assert (len(CELLS), len(TARGET_COLUMNS), len(KNOWN_COLUMNS)) == (25, 75, 25)
    for c, condition in enumerate(CONDITIONS):
        for level_index, level in enumerate(LEVELS):
            cell = cell_index(c, level_index)
            assert CELLS[cell] == f"{condition}_{level}"
            assert KNOWN_COLUMNS[cell] == f"{condition}_{level}_known"
            for s, severity in enumerate(SEVERITIES):
                column = TARGET_COLUMNS[cell * 3 + s]
                assert column == f"{condition}_{level}_{severity}"


def test_the_corners_of_the_table_are_where_the_format_says():
    assert TARGET_COLUMNS[0] == "spinal_canal_stenosis_l1_l2_normal_mild"
    assert TARGET_COLUMNS[19] == "left_neural_foraminal_narrowing_l2_l3_moderate"
    assert TARGET_COLUMNS[74] == "right_subarticular_stenosis_l5_s1_severe"


def test_exchanging_sides_swaps_left_and_right_and_nothing_else():
    exchanged = [CELLS[i] for i in EXCHANGED_CELLS]
    mirrored = [
        name.replace("left_", "?_").replace("right_", "left_").replace("?_", "right_")
        for name in CELLS
    ]
    assert exchanged == mirrored
    assert exchanged != list(CELLS)
    assert np.array(EXCHANGED_CELLS)[list(EXCHANGED_CELLS)].tolist() == list(range(25))


def test_groups_hold_every_condition_once():
    assert sorted(sum(CONDITION_GROUPS.values(), ())) == list(range(5))
    assert [CONDITIONS[c] for c in CONDITION_GROUPS["foraminal"]] == [
        "left_neural_foraminal_narrowing",
        "right_neural_foraminal_narrowing",
    ]
    assert SHOWN_CONDITIONS[SeriesType.AXIAL_T2] == CONDITION_GROUPS["subarticular"]
