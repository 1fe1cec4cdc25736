"""Ids and names as a spreadsheet or a person spells them, and which known ones they mean.

A table that went through a spreadsheet names study 100090221 as ``100090221.0``, ``1.00090221E+08``
or ``100,090,221``. A number that lost digits, such as ``1.0E+08``, matches nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable

_AROUND = " \t\r\n\u00a0\u200b\u200e\u2060\ufeff'\"`=\u2018\u2019\u201c\u201d"
_NUMBER = re.compile(r"\+?([0-9]{1,64})(?:\.([0-9]{0,64}))?(?:[eE]([+-]?[0-9]{1,3}))?")
_GROUPS = re.compile(r"[0-9]{1,3}(?:[ ,'\u2019_][0-9]{3})+")


def letters_of(text: str) -> str:
    """Return only the letters and digits of a name: ``L1-L2`` and ``l1_l2`` become ``l1l2``."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def plain_id(text: str) -> str | None:
    """Return an id without a spreadsheet's formatting; None if digits of it are lost."""
    text = unicodedata.normalize("NFKC", text).strip(_AROUND)
    if _GROUPS.fullmatch(text):
        return re.sub(r"[^0-9]", "", text)
    found = _NUMBER.fullmatch(text)
    if found is None or (found[2] is None and found[3] is None):
        return text.removeprefix("+") if found else text
    whole, behind, exponent = found[1], found[2] or "", int(found[3] or 0)
    if exponent < 0:
        return text  # a small number, which is no id
    if exponent > len(behind):
        return None
    digits, rest = whole + behind[:exponent], behind[exponent:]
    if rest.strip("0"):
        return text  # a fraction, or a short UID
    return digits if exponent == 0 else digits.lstrip("0") or "0"


def match_ids(named: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Map ids that are not known as they are spelt to the known ids that they mean.

    A spelling is mapped only if exactly one known id fits. Leading zeros are ignored only if one
    known id and one of the ``named`` ids fit.
    """
    given = dict.fromkeys(named)
    known_as: defaultdict[str, set[str]] = defaultdict(set)
    for one in known:
        known_as[_without_zeros(plain_id(one) or one)].add(one)
    named_as: defaultdict[str, set[str]] = defaultdict(set)
    plain = {text: text if text in known else plain_id(text) for text in given}
    for spelt in plain.values():
        if spelt is not None:
            named_as[_without_zeros(spelt)].add(spelt)
    meant: dict[str, str] = {}
    for text, spelt in plain.items():
        if spelt is None or text in known:
            continue
        bare = _without_zeros(spelt)
        if spelt in known:
            meant[text] = spelt
        elif len(known_as[bare]) == 1 and len(named_as[bare]) == 1:
            (meant[text],) = known_as[bare]
    return meant


def _without_zeros(text: str) -> str:
    return (text.lstrip("0") or "0") if text.isascii() and text.isdigit() else text
