"""Ids as spreadsheets change them: what is surely meant is found, nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar.cache.spelling import letters_of, match_ids, plain_id

IDS = st.integers(1, 10**12).map(str)
SPELLINGS = {
    "float": lambda text: f"{text}.0",
    "decimals": lambda text: f"{text}.000000",
    "point": lambda text: f"{text}.",
    "exponent": lambda text: f"{text[0]}.{text[1:] or '0'}E+{len(text) - 1:02}",
    "thousands": lambda text: f"{int(text):,}",
    "spaces": lambda text: f" {text}\u00a0",
    "mark": lambda text: f"\ufeff{text}",
    "quoted": lambda text: f"'{text}",
    "formula": lambda text: f'="{text}"',
    "wide": lambda text: text.translate({ord("0") + n: 0xFF10 + n for n in range(10)}),
}


@given(IDS, st.sampled_from(sorted(SPELLINGS)))
def test_a_changed_id_is_the_id(text, how):
    assert plain_id(SPELLINGS[how](text)) == text


@given(st.sets(IDS, min_size=1, max_size=8), st.data())
def test_changed_ids_mean_those_of_the_images(known, data):
    changed = {
        SPELLINGS[data.draw(st.sampled_from(sorted(SPELLINGS)))](text): text for text in known
    }
    meant = match_ids(changed, known)
    assert {text: meant.get(text, text) for text in changed} == changed


@given(st.integers(11, 10**12).filter(lambda n: n % 10))
def test_an_id_that_lost_digits_means_none(number):
    rounded = f"{number:.0E}"
    assert float(rounded) != number
    assert plain_id(rounded) is None
    assert match_ids([rounded], {str(number)}) == {}


@pytest.mark.parametrize(
    ("named", "known", "meant"),
    [
        (["7"], ["007"], {"7": "007"}),
        (["007"], ["7"], {"007": "7"}),
        (["7"], ["007", "07"], {}),  # either
        (["7"], ["007", "7"], {}),  # itself
        (["7", "07"], ["007"], {}),  # which of both?
        (["007", "7"], ["007"], {}),
        (["7.0"], ["007"], {"7.0": "007"}),
        (["7.5"], ["7"], {}),
        (["1.2.840.10"], ["1.2.840.1"], {}),
        (["1.20"], ["1.2"], {}),
        (["a "], ["a"], {"a ": "a"}),
        (["1E+3"], ["1000"], {}),
        (["1.000E+03"], ["1000"], {"1.000E+03": "1000"}),
        (["123456789012350000"], ["123456789012345678"], {}),  # 15 digits are all that Excel keeps
    ],
)
def test_what_can_mean_two_means_none(named, known, meant):
    assert match_ids(named, known) == meant


def test_names_are_their_letters():
    assert {letters_of(text) for text in ("L1/L2", "l1_l2", "L1-L2", " L1 / L2")} == {"l1l2"}
    assert letters_of("Left Neural Foraminal Narrowing") == letters_of(
        "left_neural_foraminal_narrowing"
    )
    assert letters_of("L1/L2") != letters_of("L2/L3")
