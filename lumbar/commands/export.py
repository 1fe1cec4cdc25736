"""``lumbar export``: a run's network for other programs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from lumbar.cache.errors import InputError
from lumbar.display.terminal import say


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a checkpoint.")],
    out: Annotated[
        Path, typer.Option(dir_okay=False, help="File to write: .onnx, or .pt2 of torch.export.")
    ] = Path("model.onnx"),
    slices: Annotated[
        int | None, typer.Option(min=1, help="Slices of a sample; default crop.slices.")
    ] = None,
) -> None:
    """Write a run's network as ONNX or torch.export, and a JSON page of what goes in and out."""
    from lumbar.cache.files.writable import require_file_place
    from lumbar.train.inference.export import export as run_export
    from lumbar.train.run.checkpoint import BEST, load_checkpoint
    from lumbar.train.run.folder import fold_folder, is_of_folds

    if is_of_folds(run):
        fold = fold_folder(run, 0)
        raise InputError(
            what="the folder of several folds holds a network a fold",
            where=run,
            got="the folder of all",
            expected=f"one of them, such as {fold}",
            cure=f"lumbar export {shlex.quote(str(fold))} --out {shlex.quote(str(out))}",
        )
    require_file_place(out)
    bundle, _ = load_checkpoint(run / BEST if run.is_dir() else run)
    out.parent.mkdir(parents=True, exist_ok=True)
    exported = run_export(bundle, out, slices=slices)
    say(
        f"exported: {exported.model}, described in {exported.page}; its logits are those of the "
        f"run within {exported.largest_difference:.1g}"
    )
