"""What the training loop asks of a balancer, and when; seen by one that records it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from mtcore.plugin import Balancer, Balancing, param
from mtcore.progress import Progress

CALLS: list[tuple] = []
BASE = {"split": {"folds": 1, "validation": 0.2}, "model": {"trunk": {"use": "core.mlp", "hidden": [16], "dropout": 0.3}}}


class Recorder(Balancing):
    def __init__(self, weights, batches):
        self.weights, self.batches_per_update = weights, batches
        self.scale = torch.ones(len(weights), requires_grad=True)
        self.updates = 0

    def backward(self, losses, shared, representation, rows, last=True):
        CALLS.append(("backward", {task: loss.item() for task, loss in losses.items()}, len(shared), last))
        sum(self.scale[i] * losses[task] for i, task in enumerate(self.weights) if task in losses).backward()

    def parameters(self):
        return [self.scale]

    def after_update(self, closure):
        self.updates += 1
        anew = closure()
        learned = any(loss.requires_grad for loss in anew.values())
        CALLS.append(("after", {task: loss.item() for task, loss in anew.items()}, learned))

    def epoch_ended(self, means):
        CALLS.append(("epoch", dict(means)))

    def state_dict(self):
        return {"scale": self.scale.detach().clone(), "updates": self.updates}

    def load_state_dict(self, state):
        with torch.no_grad():
            self.scale.copy_(state["scale"])
        self.updates = state["updates"]


@dataclass(frozen=True, kw_only=True)
class Recorded(Balancer):
    batches: int = param(1, help="per update")

    def build(self, weights):
        CALLS.clear()
        return Recorder(weights, self.batches)


def checkpoint(run):
    return torch.load(run.folder.checkpoint("last"), weights_only=True)


def updates() -> list[list[tuple]]:
    """The calls of `backward` of each update."""
    found = [[]]
    for call in CALLS:
        if call[0] == "backward":
            found[-1].append(call)
        elif call[0] == "after":
            found.append([])
    return found[:-1]


@pytest.mark.parametrize("accumulate, batches", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_an_update_has_its_micro_batches_and_the_last_one_is_told(make, accumulate, batches):
    make(**BASE, train={"epochs": 1, "batch_size": 4, "accumulate": accumulate, "balancer": Recorded(batches=batches)}).run()
    found = updates()
    sizes = [len(one) for one in found]
    assert set(sizes[:-1]) == {accumulate * batches} and 1 <= sizes[-1] <= accumulate * batches and len(sizes) > 1
    assert all([call[3] for call in one] == [False] * (len(one) - 1) + [True] for one in found)
    assert all(call[2] == 2 for one in found for call in one)
    assert [call[0] for call in CALLS].count("epoch") == 1 and CALLS[-1][0] == "epoch"


def test_the_closure_gives_the_updates_losses_anew(make, generated):
    """With a learning rate of 0 nothing has changed, dropout included; with one above they fall."""
    datasets = {"a": {"reader": generated(chosen=("label", "size"), missing=2)}}
    for rate, falls in ((0.0, False), (0.05, True)):
        train = {"epochs": 2, "batch_size": 4, "accumulate": 2, "balancer": Recorded(), "optimizer": {"use": "sgd", "lr": rate}}
        make(**BASE, runs=f"r{rate}", datasets=datasets, train=train).run()
        befores = [{task: sum(call[1].get(task, 0) for call in one) for task in ("label", "size")} for one in updates()]
        afters = [call[1] for call in CALLS if call[0] == "after"]
        assert not any(call[2] for call in CALLS if call[0] == "after") and len(befores) == len(afters)
        for before, after in zip(befores, afters):
            for task, value in after.items():
                assert value == pytest.approx(before[task], rel=1e-5) if not falls else value != before[task]
        means = [call[1] for call in CALLS if call[0] == "epoch"]
        assert [set(mean) for mean in means] == [{"label", "size"}] * 2


def test_learned_weights_are_optimised_saved_and_restored(make):
    changes = BASE | {"train": {"epochs": 3, "batch_size": 8, "balancer": Recorded()}}

    class Stop(Progress):
        def track(self, items, total, label):
            yield from items
            if "epoch 2" in label:
                raise KeyboardInterrupt

    [whole] = make(runs="whole", **changes).run()
    with pytest.raises(KeyboardInterrupt):
        make(runs="cut", **changes, progress=Stop()).run()
    [cut] = make(runs="cut", **changes).run()
    one, two = checkpoint(whole)["balancing"], checkpoint(cut)["balancing"]
    assert one["updates"] == two["updates"] > 3
    assert torch.equal(one["scale"], two["scale"]) and not torch.equal(one["scale"], torch.ones(1))
    assert all(torch.equal(x, y) for x, y in zip(checkpoint(whole)["model"].values(), checkpoint(cut)["model"].values()))


@pytest.mark.parametrize("balancer", ["core.sum", "balancers.upgrad", "balancers.moco", "balancers.uncertainty", "balancers.gradnorm"])
@pytest.mark.parametrize("trunk", [{"use": "core.mlp", "dropout": 0.0}, {"use": "core.cnn", "dropout": 0.0, "batch_norm": False}])
def test_scaled_losses_of_float16_reach_no_balancer(make, generated, balancer, trunk):
    """A scale that showed anywhere would be 65,536 times what is expected."""
    runs = {}
    for precision in ("float32", "float16"):
        runs[precision], = make(runs=precision, split={"folds": 1, "validation": 0.2}, model={"trunk": trunk},
                                datasets={"a": {"reader": generated()}, "b": {"reader": generated(chosen=("size",), offset=50)}},
                                tasks={"label": {"weight": 0.1}, "size": {"weight": 0.1}},
                                train={"epochs": 1, "batch_size": 8, "balancer": balancer, "precision": precision,
                                       "optimizer": {"use": "sgd", "lr": 0.01}}).run()
    (full, low) = (checkpoint(run)["model"] for run in runs.values())
    assert all(torch.allclose(value, low[key], atol=0.01) for key, value in full.items())
    assert not all(torch.equal(value, low[key]) for key, value in full.items())
    assert not any("left out" in line for line in (runs["float16"].folder.path / "run.log").read_text().splitlines())


@pytest.mark.parametrize("balancer", ["balancers.moco", "balancers.db_mtl", "balancers.excess_mtl"])
def test_updates_that_are_left_out_leave_nothing_in_balancers(make, generated, balancer):
    """What comes into being with the first update is infinite then."""
    run, = make(split={"folds": 1, "validation": 0.2}, datasets={"a": {"reader": generated(chosen=("label", "size"))}},
                tasks={"label": {"weight": 1e3}},
                train={"epochs": 6, "batch_size": 8, "balancer": balancer, "precision": "float16", "optimizer": {"use": "sgd", "lr": 1e-7}}).run()
    assert "update 1 is left out" in (run.folder.path / "run.log").read_text()
    state = checkpoint(run)
    assert state["scaling"]["fitted"] and all(value.isfinite().all() for key in ("model", "balancing") for value in state[key].values())
