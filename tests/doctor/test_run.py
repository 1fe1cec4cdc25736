"""Not even a check that ends its process, or never ends, ends the report."""

from lumbar.doctor.checks import Check
from lumbar.doctor.run import run_checks

GOOD = Check("good", "lumbar.doctor.limits:check_open_files")


def test_crash_and_exit_fail_their_own_rows_alone():
    checks = [
        GOOD,
        Check("crash", "os:abort", cure="mend it"),
        Check("exit", "os:_exit", arguments=(3,)),
        Check("good again", GOOD.function),
    ]
    rows = list(run_checks(checks))
    assert [row.name for row in rows] == ["good", "crash", "exit", "good again"]
    assert [row.result.state for row in rows] == ["pass", "fail", "fail", "pass"]
    assert rows[1].result.found == "its process ended by SIGABRT"
    assert rows[1].result.cure == "mend it"
    assert rows[2].result.found == "its process ended with exit status 3"


def test_check_that_hangs_is_stopped():
    hanging = Check("hang", "time:sleep", arguments=(600,))
    rows = list(run_checks([hanging, GOOD], limit_seconds=5.0))
    assert [row.result.state for row in rows] == ["fail", "pass"]
    assert "did not end within 5 s" in rows[0].result.found


def test_what_libraries_print_is_left_out(capfd):
    (row,) = run_checks([Check("print", "builtins:print", arguments=("noise",))])
    assert row.result is None
    assert "noise" not in "".join(capfd.readouterr())
