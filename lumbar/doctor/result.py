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
    """Return that all is as it should be."""
    return CheckResult("pass", found)


def failed(found: str, cure: str) -> CheckResult:
    """Return that something is wrong, and what to do."""
    return CheckResult("fail", found, cure)


def not_measured(why: str) -> CheckResult:
    """Return that nothing is known, and why."""
    return CheckResult("not measured", why)


def told(facts: tuple[Fact, ...]) -> CheckResult:
    """Return what is here."""
    return CheckResult("pass", "", facts=facts)
