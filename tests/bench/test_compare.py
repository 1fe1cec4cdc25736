"""Two benchmarks: a difference is claimed where spreads do not touch, and is good or bad."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.bench.compare import compare, direction
from lumbar.bench.report.schema import BenchFile, Result
from lumbar.display.bench import show_comparison

CONTEXT = {
    "date": "2026-11-24",
    "cpu": "AMD EPYC",
    "cores": 2,
    "gpu": None,
    "versions": {"lumbar": "0.1.0", "torch": "2.15.0"},
    "seed": 0,
}
SPEED = "lumbar_disk_2_threads/alone/volumes_per_second"


def result(name=SPEED, value=100.0, low=90.0, high=110.0, unit="volumes/s", **more):
    """Return a result as it stands in a file."""
    spread = {"low": low, "high": high}
    return {"name": name, "value": value, "unit": unit, "target": None, "met": None} | spread | more


def bench(*results, **context):
    return BenchFile.model_validate({"context": CONTEXT | context, "results": list(results)})


def only_row(a, b):
    (row,) = compare(bench(a), bench(b)).rows
    return row


def outcome(a, b):
    return only_row(a, b).outcome


def test_better_and_worse_where_spreads_do_not_touch():
    faster = result(value=120.0, low=110.5, high=130.0)
    assert outcome(result(), faster) == "better"
    assert outcome(faster, result()) == "worse"
    assert only_row(result(), faster).ratio == pytest.approx(1.2)


def test_spreads_that_touch_claim_nothing():
    assert outcome(result(), result(value=120.0, low=110.0, high=130.0)) == "within the spread"
    within = result(value=100.5, low=80.0, high=120.0)
    assert outcome(result(), within) == outcome(within, result()) == "within the spread"


def test_median_outside_of_its_spread_belongs_to_it():
    a = result("wait_p95", 5.0, 1.0, 2.0, unit="ms")
    assert outcome(a, result("wait_p95", 4.0, 3.0, 4.5, unit="ms")) == "within the spread"


def test_single_measurement_claims_nothing():
    once = {"name": "first_batch", "unit": "s"}
    a, b = (
        result(value=1.0, low=1.0, high=1.0, **once),
        result(value=2.0, low=2.0, high=2.0, **once),
    )
    assert outcome(a, b) == "no spread"
    assert outcome(a, result(value=2.0, low=None, high=None, **once)) == "no spread"
    assert outcome(a, a) == "the same"


def test_what_was_not_measured_is_no_change():
    nothing = result(value=None, low=None, high=None)
    for pair in ((nothing, result()), (result(), nothing), (nothing, nothing)):
        row = only_row(*pair)
        assert (row.outcome, row.ratio) == ("not measured", None)


@pytest.mark.parametrize(
    ("name", "unit", "better"),
    [
        ("x/volumes_per_second", "volumes/s", "more"),
        ("x/mvoxels_per_second", "Mvoxel/s", "more"),
        ("x/accelerator_utilisation", "%", "more"),
        ("x/gpu_utilisation", "%", "more"),
        ("x/share_of_ceiling", "times", "more"),
        ("ratio_to/opencv", "times", "more"),
        ("x/data_stall", "%", "less"),
        ("x/wait_p99", "ms", "less"),
        ("x/step", "ms", "less"),
        ("x/cpu_seconds_per_volume", "s", "less"),
        ("x/memory", "MB", "less"),
        ("x/energy_per_volume", "J", "less"),
        ("sampler/cost", "% of a core", "less"),
        ("memory/slope", "MB a thousand batches", "less"),
        ("x/from_disk", "MB/s", None),
        ("x/cpu_utilisation", "%", None),
        ("x/power", "W", None),
    ],
)
def test_direction_of_each_kind_of_number(name, unit, better):
    assert direction(Result.model_validate(result(name, unit=unit))) == better


def test_direction_that_a_result_states_goes_first():
    below = Result.model_validate(result("cpu_seconds_to_best", unit="times", wanted="below"))
    at_least = Result.model_validate(result("x/step", unit="ms", wanted="at least"))
    assert (direction(below), direction(at_least)) == ("less", "more")


def test_number_that_is_neither_good_nor_bad_changes():
    a, b = result("x/power", unit="W"), result("x/power", 300.0, 290.0, 310.0, unit="W")
    assert outcome(a, b) == "changed"


@given(st.lists(st.floats(0.1, 1e3), min_size=3, max_size=3).map(sorted), st.floats(0.1, 1e3))
def test_exchange_turns_the_outcome_round(values, shift):
    low, value, high = values
    a = result(value=value, low=low, high=high)
    b = result(value=value + shift, low=low + shift, high=high + shift)
    turned = {"better": "worse"}
    there, back = outcome(a, b), outcome(b, a)
    assert back == turned.get(there, there)
    assert there != "worse"
    if there == "within the spread":
        assert b["low"] <= a["high"]


def test_names_in_one_file_alone_are_listed():
    found = compare(bench(result(), result("old")), bench(result("new"), result()))
    assert [row.a.name for row in found.rows] == [SPEED]
    assert (found.only_in_a, found.only_in_b) == (("old",), ("new",))


def test_other_unit_is_a_note_and_no_row():
    found = compare(bench(result(unit="ms")), bench(result(unit="s")))
    assert found.rows == ()
    assert found.notes == (f"{SPEED}: ms in a, s in b",)


def test_equal_contexts_have_no_note():
    assert compare(bench(), bench(date="2026-12-01", seed=3, load_average=7.0)).notes == ()


def test_context_that_differs_is_noted_key_by_key():
    versions = {"lumbar": "0.2.0", "torch": "2.15.0"}
    a = bench(
        batch=8, run_config={"optim": {"lr": 0.1, "batch": 8}, "bfloat16": True}, box="16 x 8"
    )
    b = bench(
        cores=64,
        gpu="H200",
        versions=versions,
        batch=16,
        run_config={"optim": {"lr": 0.1, "batch": 16}},
        box="16 x 8",
    )
    assert compare(a, b).notes == (
        "cores: 2 in a, 64 in b",
        "gpu: none in a, H200 in b",
        "batch: 8 in a, 16 in b",
        "run_config.bfloat16: True in a, none in b",
        "run_config.optim.batch: 8 in a, 16 in b",
        "versions.lumbar: 0.1.0 in a, 0.2.0 in b",
    )


def test_markdown_shows_all():
    faster = result(value=130.0, low=120.0, high=140.0)
    nothing = result("x/gpu_utilisation", None, None, None, unit="%")
    page = compare(bench(result(), nothing, result("old")), bench(faster, nothing, cores=4))
    assert page.to_markdown() == (
        "a: lumbar 0.1.0, 2026-11-24, AMD EPYC, GPU: none\n"
        "\n"
        "b: lumbar 0.1.0, 2026-11-24, AMD EPYC, GPU: none\n"
        "\n"
        "Not a plain comparison:\n"
        "\n"
        "- cores: 2 in a, 4 in b\n"
        "\n"
        "| result | unit | a | b | b / a | b is |\n"
        "|---|---|---|---|---|---|\n"
        f"| {SPEED} | volumes/s | 100 (90-110) | 130 (120-140) | 1.300 | better |\n"
        "| x/gpu_utilisation | % | not measured | not measured |  | not measured |\n"
        "\n"
        "Only in a:\n"
        "\n"
        "- old\n"
    )


def test_brackets_of_another_file_are_shown_as_they_are(capsys):
    foreign = bench(result(name="a[/red]/ms", unit="[/x]"), cpu="[/b]")
    show_comparison(compare(foreign, foreign))
    shown = capsys.readouterr().out
    assert "a[/red]/ms" in shown
    assert "[/b]" in shown
