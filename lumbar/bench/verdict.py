"""Is loading the bottleneck? The verdict as text, from where the wall time goes.

Wall time has three parts: the step as it is on a replayed batch (**AU**), waits for batches
(**stall**), and what the step takes longer behind the loader than on a replayed batch (**host**).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Bound = Literal["input", "compute", "host", "drawing"]

COMPUTE_BOUND = 0.95
"""The AU from which a loader no longer matters: none could save more than a twentieth."""

GPU_BUSY = 80.0
"""Percent of the time; a GPU that is busy less on a replayed batch waits for the host."""

WORTH_SAYING = 1.05
"""How many times as fast a change has to be before it is recommended."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A change that was measured: what to type, and how many times as fast it is end to end."""

    setting: str
    gain: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What bounds one step behind the reader; ``au``, ``stall`` and ``host`` are shares.

    ``slower`` is how many times as long the step takes behind the loader as on a replayed batch.
    ``gpu_percent`` is the GPU's utilisation on a replayed batch. ``drawing_percent`` is that behind
    a reader that draws on the GPU. They are None where they were not measured.
    ``tried`` is in the order of measuring.
    """

    step: str
    label: str
    au: float
    stall: float
    slower: float
    gpu_percent: float | None = None
    drawing_percent: float | None = None
    tried: tuple[Tried, ...] = ()

    @property
    def host(self) -> float:
        """The share of the wall time that is neither the replayed step nor a wait."""
        return max(0.0, 1 - self.au - self.stall)

    @property
    def bound(self) -> Bound:
        """What the step is bound by."""
        return find_bound(self.au, self.stall, self.gpu_percent, self.drawing_percent)

    @property
    def at_most(self) -> float:
        """How many times as fast it would be if loading took no time."""
        return max(1.0, 1 / self.au)

    @property
    def best(self) -> Tried | None:
        """The change that helped most, if any did."""
        best = max(self.tried, key=lambda one: one.gain, default=None)
        return best if best is not None and best.gain >= WORTH_SAYING else None

    @property
    def finding(self) -> str:
        """The verdict as a sentence, with its number."""
        return f"{self.bound.capitalize()}-bound: {self._why()}"

    @property
    def advice(self) -> str:
        """The setting to change next, or that no measured change helps."""
        if self.best is not None:
            return f"Next: {self.best.setting}, measured here at {self.best.gain:.2f} times."
        if not self.tried:
            return "No change was tried."
        tried = ", ".join(f"{one.setting} {one.gain:.2f} times" for one in self.tried)
        return f"Nothing that was tried is worth a change: {tried}."

    def _why(self) -> str:
        if self.bound == "input":
            return (
                f"the step waits for batches {self.stall:.1%} of the time. If loading took "
                f"no time, it would be {self.at_most:.2f} times as fast."
            )
        if self.bound == "compute":
            return (
                f"{min(self.au, 1):.1%} of the time is the step itself. If loading took no time, "
                f"it would be {self.at_most:.2f} times as fast."
            )
        if self.au >= COMPUTE_BOUND:
            return (
                f"the loader does not slow it down (AU {self.au:.1%}), but even on a replayed "
                f"batch the GPU is busy only {self.gpu_percent:.0f} % of the time: it waits for "
                "its commands."
            )
        if self.bound == "drawing":
            return (
                f"the step takes {self.slower:.2f} times as long behind the reader as on a "
                f"replayed batch, and the GPU is busy {self.drawing_percent:.0f} % of the time: "
                "it renders the next batch at the same time."
            )
        return (
            f"waits are {self.stall:.1%} of the time, but the step takes {self.slower:.2f} times "
            "as long behind the loader as on a replayed batch: both use the same cores."
        )


def find_bound(
    au: float,
    stall: float,
    gpu_percent: float | None = None,
    drawing_percent: float | None = None,
) -> Bound:
    """Return what bounds a step: the greater of its two losses, or itself where both are small.

    A step that is slower behind a reader that draws on the GPU, and keeps it busy, shares it with
    the drawing; else it shares the host's cores.
    """
    if au >= COMPUTE_BOUND:
        return "host" if gpu_percent is not None and gpu_percent < GPU_BUSY else "compute"
    if stall >= 1 - au - stall:
        return "input"
    return "drawing" if drawing_percent is not None and drawing_percent >= GPU_BUSY else "host"
