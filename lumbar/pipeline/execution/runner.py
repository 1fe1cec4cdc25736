"""How tasks are run: in this process, in worker processes or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar, runtime_checkable

Task = TypeVar("Task")
Result = TypeVar("Result")


class Loss(StrEnum):
    """How a process was lost."""

    CRASHED = "crashed"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class Lost(Generic[Task]):
    """A task whose process crashed, or was killed because it took too long."""

    task: Task
    how: Loss
    detail: str


@runtime_checkable  # the tests check types
class Runner(Protocol):
    """Runs a function over tasks."""

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        at_once: int | None = None,
    ) -> Iterator[Result | Lost[Task]]:
        """Yield the results as they come, and the tasks that were lost with their process.

        ``at_once`` bounds how many run at the same time. Raises what the function raises.
        """
        ...


class InProcess:
    """Runs tasks in this process, one after the other; a crash or a hang is not isolated."""

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        at_once: int | None = None,  # one at a time in any case
    ) -> Iterator[Result | Lost[Task]]:
        """Yield the results in the order of the tasks."""
        yield from map(function, tasks)
