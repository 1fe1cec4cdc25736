"""How ``lumbar verify`` looks: a bar, and a line per problem."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.markup import escape

from lumbar.display.terminal import console, progress, size_text

if TYPE_CHECKING:
    from lumbar.cache.verify import Checked, Problem


def show_verification(events: Iterable[Checked | Problem]) -> int:
    """Show a verification and its problems; return how many there are."""
    from lumbar.cache.verify import Checked, Problem

    problems: list[Problem] = []
    n_checked = n_bytes = 0
    with progress() as bar:
        task = bar.add_task("verify", total=None, rate="", note="")
        for event in events:
            match event:
                case Checked(nbytes=nbytes):
                    n_checked += 1
                    n_bytes += nbytes
                    bar.update(task, completed=n_checked)
                case Problem():
                    problems.append(event)
    show_problems(problems)
    verdict = f"[red]{len(problems)} problems[/]" if problems else "[green]no problem[/]"
    console.print(f"{n_checked:,} items checked, {size_text(n_bytes)} read: {verdict}")
    return len(problems)


def show_problems(problems: Iterable[Problem]) -> None:
    """Print one line per problem."""
    for problem in problems:
        console.print(
            f"[red]{escape(problem.what)}[/]: "
            + escape(f"{problem.where}: {problem.detail}; {problem.cure}"),
            highlight=False,
            soft_wrap=True,
        )
