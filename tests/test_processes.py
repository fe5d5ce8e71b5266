"""Several processes train one model; several runs train at a time."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from mtcore.progress import Progress
from mtcore.training.gradient import load_checkpoint
from mtcore.training.statistics import RunningStatistics

FILE = """
name = "spread"
[datasets.tones]
reader = {{use = "core.tones", count = 24}}
[datasets.chords]
reader = {{use = "core.chords", count = 16}}
[inputs.main]
extractor = {{use = "core.spectrogram", hop = 0.05}}
steps = ["core.standardize"]
[split]
folds = 1
validation = 0.2
[model]
trunk = {{use = "core.cnn", channels = [4, 6], batch_norm = {norm}, dropout = 0.3}}
[train]
epochs = {epochs}
batch_size = 4
sampler = "{sampler}"
optimizer = {{use = "sgd", lr = {rate}}}
save = {{updates = 1}}
{train}
[report]
reporters = []
"""


def command(tmp_path, name, processes=1, train="", sampler="mixed", extra=(), norm="false", rate=0.05, epochs=2):
    """The command that runs the experiment, with so many processes."""
    (tmp_path / f"{name}.toml").write_text(FILE.format(train=train, sampler=sampler, norm=norm, rate=rate, epochs=epochs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}", *extra, "-m"]
    return [*(start if processes > 1 else [sys.executable, "-m"]), "mtcore", "run", str(tmp_path / f"{name}.toml"), "--runs",
            str(tmp_path / name)]


@pytest.fixture
def environment(tmp_path):
    return {**os.environ, "OMP_NUM_THREADS": "1", "MTCORE_CACHE": str(tmp_path / "cache")}


def told(folder):
    """Weights and figures of the only run below a folder."""
    path, = folder.glob("spread/run*")
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return load_checkpoint(path / "checkpoints" / "last.pt")["model"], {(r["epoch"], r["part"], r["task"], r["metric"], r["checkpoint"]): r["value"]
                                                                        for r in lines}


@pytest.mark.parametrize(("sampler", "norm", "each", "train", "near"), [
    ("alternating", "false", 2, "", 1e-5), ("mixed", "true", 3, "balancer = 'balancers.famo'", 1e-5),
    ("mixed", "true", 3, "balancer = 'balancers.mgda'\nprecision = 'float16'", 1e-3)])
def test_two_processes_are_one_with_the_same_global_batch(tmp_path, environment, sampler, norm, each, train, near):
    """With batches of one dataset each, a process lacks the heads of the other dataset; of seven batches, the last update leaves none to the
    second process, whose balancer waits for the first one's all the same."""
    for name, processes in (("one", 1), ("two", 2)):
        accumulate = f"accumulate = {2 * each // processes}\n"
        subprocess.run(command(tmp_path, name, processes, accumulate + train, sampler, norm=norm, rate=0.01), env=environment, check=True,
                       capture_output=True, text=True)
    (one, figures), (two, others) = (told(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.allclose(one[key], two[key], atol=near) for key in one)
    assert figures.keys() == others.keys()
    assert all(figures[key] == pytest.approx(others[key], rel=100 * near, abs=10 * near) for key in figures if key[3] == "loss")


class Thread:
    """One of two processes that are threads of this one."""

    count = 2
    barrier, values = threading.Barrier(2), {}

    def __init__(self, rank):
        self.rank = rank

    def total(self, values):
        self.values[self.rank] = values
        self.barrier.wait()
        found = self.values[0] + self.values[1]
        self.barrier.wait()
        return found


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.BatchNorm1d(3, momentum=None), nn.BatchNorm1d(3, momentum=0.7, affine=False),
                                   nn.InstanceNorm1d(3, track_running_stats=True)], ids=str)
def test_running_statistics_of_two_processes_are_those_of_one(layer):
    """Updates of 5, 3 and 1 micro-batches, the even ones of which belong to the first process."""
    torch.manual_seed(0)
    updates = [[3 * torch.randn(4, 3, 6) + i for i in range(number)] for number in (5, 3, 1)]
    alone, layers = copy.deepcopy(layer), [copy.deepcopy(layer) for _ in range(2)]
    for batch in (batch for update in updates for batch in update):
        alone(batch)

    def train(rank):
        statistics = RunningStatistics(layers[rank], Thread(rank))
        for update in updates:
            statistics.start(len(update))
            for place in range(rank, len(update), 2):
                layers[rank](update[place])
                statistics.take(place)
            statistics.join()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, range(2)))
    for one in layers:
        assert all(torch.allclose(value, one.state_dict()[key], atol=1e-6) for key, value in alone.state_dict().items())


def test_a_killed_worker_and_a_restart_continue(tmp_path, environment):
    for name in ("whole", "killed"):
        start = command(tmp_path, name, 2, extra=("--max-restarts=2",), norm="true", rate=0.001, epochs=20)
        process = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if name == "killed":
            while not list((tmp_path / name).glob("spread/run*/checkpoints/last.pt")) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.2)
            workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
            os.kill(int(workers[-1]), signal.SIGKILL)
        try:
            assert process.wait(timeout=400) == 0
        finally:
            process.kill()
            process.wait()
    log = next((tmp_path / "killed").glob("spread/run*/run.log")).read_text()
    assert "continued after epoch" in log
    (one, figures), (two, others) = (told(tmp_path / name) for name in ("whole", "killed"))
    assert all(torch.equal(one[key], two[key]) for key in one) and figures == others


def test_an_interrupt_that_comes_twice_ends_a_process_once(tmp_path, environment):
    """The terminal interrupts a process, and torchrun passes its own interrupt on to it a little later."""
    start = command(tmp_path, "cut")
    (tmp_path / "cut.toml").write_text((tmp_path / "cut.toml").read_text().replace("epochs = 2", "epochs = 10000"))
    process = subprocess.Popen(start, env={**environment, "WORLD_SIZE": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while not list((tmp_path / "cut").glob("spread/run*/checkpoints/last.pt")) and process.poll() is None:
            time.sleep(0.01)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        told, _ = process.communicate(timeout=100)
    finally:
        process.kill()
        process.wait()
    info, = (tmp_path / "cut").glob("spread/run*/run.json")
    assert json.loads(info.read_text())["status"] == "interrupted"
    assert process.returncode == 130 and told.splitlines()[-1] == "interrupted; the same command goes on" and told.count("interrupted") == 1


def test_runs_at_a_time_are_the_same_runs(make):
    changes = {"datasets": {"a": {"reader": {"use": "core.tones", "count": 24}}}, "split": {"folds": 1}, "vary": {"seed": [1, 2]}}
    said = Progress()
    said.say = (lines := []).append
    one, two = ([run.folder.path for run in make(runs=name, jobs=jobs, progress=said, **changes).run()] for name, jobs in (("a", 1), ("b", 2)))
    assert lines[:2] == [f"[{number}/2] {path.name} starts" for number, path in enumerate(one, 1)]
    assert sorted(lines[2:]) == sorted(f"{path.name} is done" for path in two)  # each once
    assert [path.name for path in one] == [path.name for path in two] and len(one) == 2
    assert all((a / "metrics.jsonl").read_text() == (b / "metrics.jsonl").read_text() for a, b in zip(one, two))
