import errno
import json
import threading

import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lumbar.cache.errors import FormatError
from lumbar.train.evaluation.metric import Score
from lumbar.train.trainer.curves import draw_curves
from lumbar.train.trainer.events import EpochFinished
from lumbar.train.trainer.run_log import History, read_metrics

PRIOR = Score(0.7, 0.8, 0.95, 0.69, 0.785)


def epoch(number, *, total=0.5, foraminal=0.8, gpu_percent=None, is_best=True):
    return EpochFinished(
        epoch=number,
        train_loss=1 / (number + 1),
        valid_loss=1.1 / (number + 1),
        learning_rate=1e-3 / (number + 1),
        score=Score(0.1 + 0.2, foraminal, None, 0.4, total),
        is_best=is_best,
        samples_per_second=81.5,
        data_wait=0.03125,
        gpu_percent=gpu_percent,
    )


@pytest.fixture
def pictures(monkeypatch):
    """What would be drawn, instead of drawing it."""
    drawn = []
    monkeypatch.setattr(
        "lumbar.train.trainer.run_log.draw_curves",
        lambda history, prior, path, _: drawn.append(([e.epoch for e in history], prior, path)),
    )
    return drawn


def test_a_board_says_in_which_parts_the_training_prior_stands_in(tmp_path, pictures):
    with History(tmp_path, PRIOR, by_prior=["foraminal", "total"]) as history:
        history.add(epoch(0))
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    (told,) = board.Tensors("metric/text_summary")
    assert b"foraminal, total" in told.tensor_proto.string_val[0]


def test_what_was_written_is_read_back(tmp_path, pictures):
    epochs = [epoch(0), epoch(1, foraminal=None), epoch(2, gpu_percent=93.4)]
    with History(tmp_path, PRIOR) as history:
        for number, entry in enumerate(epochs):
            history.add(entry)
            # Nothing waits for the end of the run.
            assert read_metrics(tmp_path) == epochs[: number + 1]
    assert pictures == [(list(range(n)), PRIOR, tmp_path / "curves.png") for n in (1, 2, 3)]


def test_training_does_not_wait_for_a_picture_but_for_the_one_before(tmp_path, monkeypatch):
    may_draw, drawn = threading.Event(), []

    def draw(history, *_):
        assert may_draw.wait(timeout=60)
        drawn.append(len(history))

    monkeypatch.setattr("lumbar.train.trainer.run_log.draw_curves", draw)
    with History(tmp_path, PRIOR) as history:
        history.add(epoch(0))
        assert drawn == []
        may_draw.set()
        history.add(epoch(1))
        assert drawn[0] == 1
    assert drawn == [1, 2]


def test_a_picture_that_cannot_be_written_ends_the_run(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("lumbar.train.trainer.run_log.draw_curves", fail)
    with pytest.raises(OSError, match="no space left"), History(tmp_path, PRIOR) as history:
        history.add(epoch(0))


def test_a_new_run_starts_from_nothing(tmp_path, pictures):
    with History(tmp_path, PRIOR) as history:
        assert history.epochs == []
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_resumed_run_cuts_what_came_after_its_checkpoint(tmp_path, pictures):
    with History(tmp_path, PRIOR) as history:
        for number in range(4):
            history.add(epoch(number, total=0.9))
    with History(tmp_path, PRIOR, first_epoch=2) as history:
        assert [e.epoch for e in read_metrics(tmp_path)] == [0, 1]
        history.add(epoch(2, total=0.3))
        history.add(epoch(3, total=0.2))
    assert [(e.epoch, e.score.total) for e in read_metrics(tmp_path)] == [
        (0, 0.9),
        (1, 0.9),
        (2, 0.3),
        (3, 0.2),
    ]
    assert pictures[-1][0] == [0, 1, 2, 3]
    totals = EventAccumulator(str(tmp_path)).Reload().Scalars("metric/total")
    assert [(t.step, pytest.approx(t.value)) for t in totals] == [
        (0, 0.9),
        (1, 0.9),
        (2, 0.3),
        (3, 0.2),
    ]


def test_what_was_not_measured_is_no_number_on_the_board(tmp_path, pictures):
    with History(tmp_path, PRIOR) as history:
        history.add(epoch(0, foraminal=None))
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]
    assert "metric/spinal" in tags
    assert "throughput/data_wait" in tags
    assert not {"metric/foraminal", "metric/subarticular", "throughput/gpu_percent"} & set(tags)


@pytest.mark.parametrize("line", ["{", "[1]", '{"epoch": 1}', '{"epoch": 0, "score": {"x": 1}}'])
def test_a_damaged_line_is_named(tmp_path, line):
    good = json.dumps(epoch(0).to_json())
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(FormatError, match=r"metrics\.jsonl line 2"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    "epochs",
    [
        [epoch(0)],
        [epoch(0, is_best=False), epoch(1, is_best=False, foraminal=None)],
        [epoch(n, gpu_percent=90.0 if n else None) for n in range(3)],
    ],
)
def test_curves_are_a_picture_of_their_own_and_leave_nothing_open(tmp_path, epochs):
    path = tmp_path / "curves.png"
    draw_curves(epochs, PRIOR, path)
    picture = plt.imread(path)
    assert picture.shape[:2] == (770, 1210)
    assert picture.std() > 0.02
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    assert plt.get_fignums() == []


def test_parts_without_a_model_are_left_out_of_the_curves_and_the_total_says_so(
    tmp_path, monkeypatch
):
    figures = []

    class Kept(Figure):
        def __init__(self, **options):
            super().__init__(**options)
            figures.append(self)

    monkeypatch.setattr("lumbar.train.trainer.curves.Figure", Kept)
    with History(tmp_path, PRIOR, by_prior=["foraminal", "total"]) as history:
        history.add(epoch(0))
    with History(tmp_path, PRIOR) as history:
        history.add(epoch(0))
    legends = [
        [text.get_text() for text in figure.axes[1].get_legend().get_texts()] for figure in figures
    ]
    assert legends == [
        ["spinal", "any severe spinal", "total, with the training prior's parts"],
        ["spinal", "foraminal", "any severe spinal", "total"],
    ]
