"""The result of a check: pass, fail with a cure, or not measured with the reason; and facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["pass", "fail", "not measured"]


@dataclass(frozen=True, slots=True)
class Fact:
    """A property of the machine and its value, as text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found; ``cure`` is what to do about a failure."""

    state: State
    found: str
    cure: str = ""
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One check's result under its name, and how long it took."""

    name: str
    result: CheckResult
    seconds: float


def passed(found: str) -> CheckResult:
    """Return the result of a check that passed."""
    return CheckResult("pass", found)


def failed(found: str, cure: str) -> CheckResult:
    """Return the result of a check that failed, with what to do."""
    return CheckResult("fail", found, cure)


def not_measured(why: str) -> CheckResult:
    """Return the result of a check that could not be made, with the reason."""
    return CheckResult("not measured", why)


def told(facts: tuple[Fact, ...]) -> CheckResult:
    """Return facts as a result."""
    return CheckResult("pass", "", facts=facts)
