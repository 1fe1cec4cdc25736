"""A Dask cluster of two processes that loses one gives the bytes of a single run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import dask
import pytest
from distributed import LocalCluster
from fixtures.dicom import tree

from lumbar.cache.errors import InputError, LumbarError
from lumbar.pipeline.events import SeriesFinished
from lumbar.pipeline.execution.cluster import dask_cluster
from lumbar.pipeline.execution.runner import Loss, Lost
from lumbar.pipeline.preprocess import preprocess


@pytest.fixture
def cluster():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as started,
    ):
        yield started


def test_a_cluster_that_loses_a_worker_gives_the_bytes_of_one_run(tools, tmp_path, rsna, cluster):
    for study in range(300, 306):
        tools.phantom.write(rsna / "train_images" / str(study) / "1", rle=True)
    tools.run(rsna, tmp_path / "one")
    victims = [worker.pid for worker in cluster.workers.values()]
    events = preprocess(
        rsna, tmp_path / "out", tools.exact, workers=0, scheduler=cluster.scheduler_address
    )
    for event in events:
        if isinstance(event, SeriesFinished) and victims:
            os.kill(victims.pop(), signal.SIGKILL)
            victims.clear()
    assert tree(tmp_path / "out") == tree(tmp_path / "one")
    with dask_cluster(cluster.scheduler_address) as runner:
        outcomes = list(runner.run(signal.raise_signal, [int(signal.SIGKILL)]))
        assert outcomes == [
            Lost(int(signal.SIGKILL), Loss.CRASHED, "each worker that tried it was lost")
        ]


def test_a_scheduler_that_is_lost_is_said(tmp_path, caplog):
    found = tmp_path / "scheduler.json"
    arguments = ["--port", "0", "--no-dashboard", "--scheduler-file", found]
    with subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *arguments],
        stderr=subprocess.DEVNULL,
    ) as scheduler:
        while not found.exists() or not found.read_text():
            assert scheduler.poll() is None
            time.sleep(0.05)
        address = json.loads(found.read_text())["address"]
        with dask_cluster(address) as runner:
            threading.Timer(0.5, scheduler.kill).start()  # no worker is there: it waits until then
            with pytest.raises(LumbarError, match=f"scheduler is lost: {address}"):
                list(runner.run(abs, [-3]))
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_does_not_answer_is_the_callers_mistake(address, monkeypatch):
    monkeypatch.setattr("lumbar.pipeline.execution.cluster.CONNECT_S", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler answers"), dask_cluster(address):
        pass
