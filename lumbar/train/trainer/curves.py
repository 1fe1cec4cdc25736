"""``curves.png``: loss, score, learning rate and data wait, drawn after every epoch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lumbar.cache.files.atomic import save_figure
from lumbar.train.evaluation.metric import Score
from lumbar.train.trainer.events import EpochFinished


def draw_curves(
    history: Sequence[EpochFinished], prior: Score, path: Path, by_prior: Collection[str] = ()
) -> None:
    """Draw the history of a run; the dashed line is the training prior's score.

    Parts ``by_prior``, which have no model, are left out; a total that contains one is marked.
    The figure belongs to no global state, so nothing is left open.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    loss, score, rate, wait = figure.subplots(2, 2).flat
    epochs = [entry.epoch + 1 for entry in history]
    best = [entry.epoch + 1 for entry in history if entry.is_best][-1:]

    loss.plot(epochs, [entry.train_loss for entry in history], marker=".", label="train")
    loss.plot(epochs, [entry.valid_loss for entry in history], marker=".", label="held out")
    loss.set(title="loss", ylabel="weighted loss")
    loss.legend()

    for part, colour in zip(prior.to_json(), ("C0", "C1", "C2", "C3", "black"), strict=True):
        values = [entry.score.to_json()[part] for entry in history]
        reference = prior.to_json()[part]
        if reference is None or None in values or (part in by_prior and part != "total"):
            continue
        label = part.replace("_", " ")
        if part in by_prior:
            label += ", with the training prior's parts"
        score.plot(epochs, values, marker=".", color=colour, label=label)
        score.axhline(reference, color=colour, linestyle="--", linewidth=0.8, alpha=0.6)
    score.set(title="metric (dashed: training prior)", ylabel="lower is better")
    for epoch in best:
        score.axvline(epoch, color="grey", linewidth=0.8)
    score.legend(fontsize="small")

    rate.plot(epochs, [entry.learning_rate for entry in history], marker=".")
    rate.set(title="learning rate at the start of the epoch", yscale="log")

    wait.plot(epochs, [100 * entry.data_wait for entry in history], marker=".", label="data wait")
    gpu = [(e.epoch + 1, e.gpu_percent) for e in history if e.gpu_percent is not None]
    if gpu:
        wait.plot(*zip(*gpu, strict=True), marker=".", label="GPU utilisation")
    wait.set(title="share of time", ylabel="%", ylim=(0, None))
    wait.legend()

    for axes in figure.axes:
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    save_figure(figure, path)
