"""What a check found: pass, fail with a cure, or not measured with why; and facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["pass", "fail", "not measured"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of what is here."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found; ``cure`` is what to do about a failure."""

    state: State
    found: str
    cure: str = ""
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One check's result under its name, and how long it took."""

    name: str
    result: Result
    seconds: float


def passed(found: str) -> Result:
    """Return that all is as it should be."""
    return Result("pass", found)


def failed(found: str, cure: str) -> Result:
    """Return that something is wrong, and what to do."""
    return Result("fail", found, cure)


def not_measured(why: str) -> Result:
    """Return that nothing is known, and why."""
    return Result("not measured", why)


def told(facts: tuple[Fact, ...]) -> Result:
    """Return what is here."""
    return Result("pass", "", facts=facts)
