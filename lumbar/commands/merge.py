"""``lumbar merge``: join the caches of all shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lumbar.display.merge import show_taken
from lumbar.display.terminal import say, say_next


def merge(
    shards: Annotated[list[Path], typer.Argument(help="Caches made with --shard, all of them.")],
    out: Annotated[Path, typer.Option(help="Cache folder to make.")],
) -> None:
    """Join the caches of all shards into the cache that one run would make."""
    from lumbar.pipeline.maintenance.merge import merge as run

    n_volumes = show_taken(run(out, shards), "merge")
    say(f"cache: {out}, {n_volumes:,} volumes")
    say_next("verify", out)
