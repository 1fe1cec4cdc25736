from pathlib import Path

import pytest

from lumbar.cache.errors import BusyError, FormatError, InputError, LumbarError, MissingError


def test_a_message_is_one_line_of_what_where_got_expected_and_cure():
    error = InputError(
        what="unknown severity",
        where=Path("a.csv"),
        got="'Mild\n'",
        expected="Moderate",
        cure="correct it",
    )
    assert str(error) == "unknown severity: a.csv; got 'Mild '; expected Moderate; correct it"
    assert str(LumbarError(what="it broke")) == "it broke"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InputError, ValueError),
        (MissingError, FileNotFoundError),
        (FormatError, ValueError),
        (BusyError, RuntimeError),
    ],
)
def test_errors_are_also_the_builtin_that_fits(kind, builtin):
    error = kind(what="what", where="where")
    assert isinstance(error, builtin)
    assert isinstance(error, LumbarError)
    assert str(error) == "what: where"
