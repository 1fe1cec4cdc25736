import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from lumbar.cache.labels import label_table
from lumbar.train.evaluation.evaluate import evaluate
from lumbar.train.evaluation.plots import write_evaluation
from lumbar.train.evaluation.predictions import Predictions

PNG = b"\x89PNG\r\n"


def evaluated(probabilities, severities, **more):
    study_ids = [f"{row:02}" for row in range(len(severities))]
    predictions = Predictions(tuple(study_ids), probabilities, **more)
    return evaluate(predictions, label_table(study_ids, severities), where="a test")


def size_of(path):
    data = path.read_bytes()
    assert data.startswith(PNG)
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


@pytest.fixture
def severities():
    return np.random.default_rng(0).choice(np.array([-1, 0, 1, 2], np.int8), (30, 25))


def test_numbers_and_pictures_are_written_whole_and_no_figure_stays_open(tmp_path, severities):
    probabilities = np.random.default_rng(1).dirichlet([1, 1, 1], severities.shape)
    evaluation = evaluated(probabilities, severities)
    write_evaluation(tmp_path / "new" / "folder", evaluation)
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "confusion.png",
        "evaluation.json",
        "reliability.png",
    ]
    assert json.loads((folder / "evaluation.json").read_text()) == evaluation.to_json()
    for name in ("confusion.png", "reliability.png"):
        width, height = size_of(folder / name)
        assert width > 800
        assert height > 300
    assert plt.get_fignums() == []


def test_other_predictions_give_other_pictures(tmp_path, severities):
    drawn = {}
    for name, probabilities in (
        ("guess", np.full((30, 25, 3), 1 / 3)),
        ("known", np.eye(3)[np.maximum(severities, 0)] + 0.1),
    ):
        write_evaluation(tmp_path / name, evaluated(probabilities, severities))
        drawn[name] = [
            (tmp_path / name / f).read_bytes() for f in ("confusion.png", "reliability.png")
        ]
    assert drawn["guess"][0] != drawn["known"][0]
    assert drawn["guess"][1] != drawn["known"][1]


def test_groups_without_a_label_are_drawn_empty(tmp_path, severities):
    severities[:, 5:] = -1
    write_evaluation(tmp_path, evaluated(np.full((30, 25, 3), 1 / 3), severities))
    assert size_of(tmp_path / "confusion.png")


def test_groups_without_a_model_are_left_out_of_the_pictures_and_named(
    tmp_path, monkeypatch, severities
):
    figures = []

    class Kept(Figure):
        def __init__(self, **options):
            super().__init__(**options)
            figures.append(self)

    monkeypatch.setattr("lumbar.train.evaluation.plots.Figure", Kept)
    by_prior = np.zeros((30, 25), bool)
    by_prior[:, 5:15], by_prior[0, 15:] = True, True
    probabilities = np.random.default_rng(1).dirichlet([1, 1, 1], severities.shape)
    write_evaluation(tmp_path, evaluated(probabilities, severities, by_prior=by_prior))
    left_out = (severities[0, 15:] >= 0).sum()
    titles = ["spinal", "foraminal: no model", f"subarticular, without {left_out} by the prior"]
    for figure in figures:
        assert [axes.get_title() for axes in figure.axes[:3]] == titles
    curves = [sum(len(line.get_xdata()) for line in axes.lines) for axes in figures[0].axes[:3]]
    assert curves[1] == 2, "the diagonal alone"
    assert min(curves[0], curves[2]) > 2
    assert {text.get_text() for text in figures[1].axes[1].texts} == {"0\n0 %"}
