"""``lumbar blend``: fit the weights of runs to their out-of-fold predictions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from lumbar.commands.options import RunCacheOption
from lumbar.display.blend import show_blend
from lumbar.display.terminal import say, say_next


def blend(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, all folds of each.")],
    cache: RunCacheOption = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the blend.")] = Path(
        "blend"
    ),
    space: Annotated[
        Literal["probability", "log"], typer.Option(help="Mix probabilities, or their logarithms.")
    ] = "probability",
) -> None:
    """Fit the weights of runs to the studies that they held out; for predict --blend."""
    from lumbar.cache.files.writable import require_folder_place
    from lumbar.cache.store import Cache
    from lumbar.train.ensemble.blend import BLEND_FILE, write_blend
    from lumbar.train.evaluation.predictions import write_oof
    from lumbar.train.inference.blend_runs import blend_runs
    from lumbar.train.run.cache import cache_of
    from lumbar.train.run.folder import OOF

    require_folder_place(out)
    fitted = blend_runs(
        runs,
        Cache(cache_of(runs, cache)),
        space=space,
        path_of=lambda run: os.path.relpath(run.resolve(), out.resolve()),
    )
    out.mkdir(parents=True, exist_ok=True)
    write_oof(out / OOF, fitted.fit.predictions)
    write_blend(out / BLEND_FILE, fitted.file)
    show_blend(fitted.fit, [member.name for member in fitted.members])
    say(f"out-of-fold predictions of the blend: {out / OOF}")
    say(f"blend: {out / BLEND_FILE}")
    say_next("predict", "--blend", out, "--src", "DICOMS", "--split", "test")
