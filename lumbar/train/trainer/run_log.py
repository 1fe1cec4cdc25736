"""A run's records: ``metrics.jsonl``, TensorBoard, ``curves.png``; flushed every epoch."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from lumbar.cache.errors import FormatError
from lumbar.cache.files.atomic import write_atomically
from lumbar.train.evaluation.metric import Score
from lumbar.train.run.folder import METRICS
from lumbar.train.trainer.curves import draw_curves
from lumbar.train.trainer.events import EpochFinished

CURVES = "curves.png"


class History:
    """Writes the results of every epoch; curves are drawn in a thread, while the next one trains.

    ``prior`` is the score of the training prior; parts ``by_prior`` contain its cells.
    ``first_epoch`` cuts what a killed run wrote after its last checkpoint.
    """

    def __init__(
        self, run: Path, prior: Score, *, by_prior: Collection[str] = (), first_epoch: int = 0
    ) -> None:
        self.run = run
        self.prior = prior
        self.by_prior = by_prior
        kept = read_metrics(run) if first_epoch else []
        self.epochs = [entry for entry in kept if entry.epoch < first_epoch]
        lines = "".join(json.dumps(entry.to_json()) + "\n" for entry in self.epochs)
        write_atomically(run / METRICS, lines.encode())
        self._board = SummaryWriter(str(run), purge_step=first_epoch)
        if by_prior:
            parts = ", ".join(by_prior)
            self._board.add_text("metric", f"the training prior stands in in parts of {parts}")
        self._artist = ThreadPoolExecutor(1, thread_name_prefix="lumbar-curves")
        self._drawing: Future[None] | None = None

    def __enter__(self) -> History:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._board.close()
        self._artist.shutdown()
        if error is None:
            self._end_drawing()

    def add(self, epoch: EpochFinished) -> None:
        """Record one epoch in all three places."""
        self.epochs.append(epoch)
        with (self.run / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(epoch.to_json()) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._add_to_board(epoch)
        self._end_drawing()
        so_far, path = list(self.epochs), self.run / CURVES
        self._drawing = self._artist.submit(draw_curves, so_far, self.prior, path, self.by_prior)

    def _end_drawing(self) -> None:
        """Wait for the picture of the epoch before, and raise what went wrong with it."""
        if self._drawing is not None:
            self._drawing.result()
            self._drawing = None

    def _add_to_board(self, epoch: EpochFinished) -> None:
        for name, value in board_scalars(epoch).items():
            self._board.add_scalar(name, value, epoch.epoch)
        self._board.flush()


def board_scalars(epoch: EpochFinished) -> dict[str, float]:
    """Return what is measured of an epoch, by the names under which boards show it."""
    scalars = {
        "loss/train": epoch.train_loss,
        "loss/held_out": epoch.valid_loss,
        "learning_rate": epoch.learning_rate,
        "throughput/samples_per_second": epoch.samples_per_second,
        "throughput/data_wait": epoch.data_wait,
        "throughput/gpu_percent": epoch.gpu_percent,
    } | {f"metric/{part}": value for part, value in epoch.score.to_json().items()}
    return {name: value for name, value in scalars.items() if value is not None}


def read_metrics(run: Path) -> list[EpochFinished]:
    """Read a run's ``metrics.jsonl``; raise `FormatError` for a damaged line.

    A last line without its end is what a killed run was writing, and is left out.
    """
    entries = []
    lines = (run / METRICS).read_text("utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    for number, line in enumerate(whole, start=1):
        try:
            entries.append(EpochFinished.from_json(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise FormatError(
                what="metrics of a run",
                where=f"{run / METRICS} line {number}",
                got=error,
                expected="a JSON object of one epoch",
                cure="remove the line",
            ) from error
    return entries
