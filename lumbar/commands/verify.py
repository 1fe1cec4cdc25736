"""``lumbar verify``: check every byte and row of a cache, and repair it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lumbar.commands.options import CORES, CacheArgument, WorkersOption, unclear
from lumbar.display.preprocess import show_preprocess, show_reasons
from lumbar.display.terminal import say, say_next
from lumbar.display.verify import show_problems, show_verification


def verify(
    cache: CacheArgument = Path("cache"),
    repair: Annotated[
        bool, typer.Option("--repair", help="Preprocess again what is damaged, from --src.")
    ] = False,
    src: Annotated[Path | None, typer.Option(help="The DICOM files, for --repair.")] = None,
    workers: WorkersOption = CORES,
) -> None:
    """Check every byte and row of a cache; exit with 1 if anything is wrong, or it is empty."""
    from lumbar.cache.store import Cache
    from lumbar.cache.verify import verify as run

    if repair != (src is not None):
        got = "--repair without --src" if repair else "--src without --repair"
        raise unclear(verify, got, "both or neither")
    if src is not None:
        _repair(cache, src, workers)
    if show_verification(run(cache)):
        raise typer.Exit(1)
    opened = Cache(cache)
    if opened.is_empty_shard:
        say("a shard without studies: the other shards have them all")
    elif opened.series.is_empty():
        from lumbar.cache.store import empty_cache

        raise empty_cache(opened)
    else:
        say_next("inspect", cache)


def _repair(cache: Path, src: Path, workers: int) -> None:
    """Show what is damaged and preprocess it again."""
    from lumbar.pipeline.maintenance.repair import find_problems, repair

    problems = find_problems(cache)
    show_problems(problems)
    if problems:
        finished = show_preprocess(repair(cache, src, problems, workers=workers))
        show_reasons(finished.rejected_by_reason, cache)
