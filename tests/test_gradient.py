"""What `[train]` offers the gradient trainer beside the optimizer: groups, freezing, averages, precision, costs, memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mtcore.errors import DataError, ExperimentError, TrainingError
from mtcore.plugin import Trunk, param
from mtcore.training.gradient import GradientRun, load_checkpoint
from mtcore.training.optimizers import freeze

ONE = {"split": {"folds": 1, "validation": 0.2}}


def weights(run, name="last"):
    return load_checkpoint(run.folder.checkpoint(name))["model"]


def trained(make, runs, **train):
    run, = make(runs=runs, **ONE, train={"epochs": 2, "batch_size": 8, "optimizer": {"use": "sgd", "lr": 0.1}, **train}).run()
    return run


def first(run):
    """The weights before any update."""
    return run.model(run.data()).state_dict()


def test_frozen_parameters_and_rates_by_pattern(make):
    plain = trained(make, "plain")
    frozen = trained(make, "frozen", parameters={"trunks.*": {"frozen": True}})
    for key, value in weights(frozen).items():
        assert torch.equal(value, first(frozen)[key]) == key.startswith("trunks."), key
    later = trained(make, "later", parameters={"trunks.*": {"frozen": 1}})
    assert not any(torch.equal(value, first(later)[key]) for key, value in weights(later).items())
    still = trained(make, "still", parameters={"heads.*": {"lr": 0.0}})
    assert all(torch.equal(value, first(still)[key]) for key, value in weights(still).items() if key.startswith("heads."))
    assert not torch.equal(weights(still)["heads.label.layers.1.weight"], weights(plain)["heads.label.layers.1.weight"])
    with pytest.raises(ExperimentError, match="no parameter's name fits 'trunk.*'"):
        trained(make, "wrong", parameters={"trunk.*": {"frozen": True}})


def test_the_average_of_the_weights_is_evaluated(make, monkeypatch):
    seen, whole = [], GradientRun.one_update

    def one_update(self, micro, total):
        whole(self, micro, total)
        seen.append(copy.deepcopy(self.model.state_dict()))

    monkeypatch.setattr(GradientRun, "one_update", one_update)
    run = trained(make, "average", average=0.5)
    expected = seen[0]
    for state in seen[1:]:
        expected = {key: 0.5 * expected[key] + 0.5 * state[key] for key in state}
    assert all(torch.allclose(value, expected[key], atol=1e-6) for key, value in weights(run).items())
    assert all(torch.equal(value, seen[-1][key]) for key, value in load_checkpoint(run.folder.checkpoint("last"))["learned"].items())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_is_near(make, precision):
    one, low = trained(make, "float32"), trained(make, "low", precision=precision)
    assert one.identity != low.identity
    for key, value in weights(low).items():
        assert value.dtype == torch.float32 and torch.allclose(value, weights(one)[key], atol=0.03)
    assert not all(torch.equal(value, weights(one)[key]) for key, value in weights(low).items())


def test_an_update_that_float16_cannot_hold_is_left_out_and_the_next_ones_fit(make):
    """A weight of 10,000 takes gradients of the layers' outputs over 65,504 at the first scales."""
    run, = make(**ONE, tasks={"label": {"weight": 1e4}},
                train={"epochs": 2, "batch_size": 8, "precision": "float16", "optimizer": {"use": "sgd", "lr": 1e-7}}).run()
    left = [line for line in (run.folder.path / "run.log").read_text().splitlines() if "left out" in line]
    state = load_checkpoint(run.folder.checkpoint("last"))
    assert left and state["scaling"] == {"scale": 2.0 ** (16 - len(left)), "fitted": state["update"] - len(left)}
    assert all(value.isfinite().all() for value in weights(run).values())


def test_inspection_logs_norms_and_cosines(make, generated):
    run, = make(**ONE, datasets={"a": {"reader": generated(chosen=("label", "size"))}},
                train={"epochs": 1, "batch_size": 8, "inspect": 2}).run()
    found = {(row["task"], row["metric"]): row["value"] for row in run.folder.metrics("train")}
    assert found["label", "gradient_norm"] > 0 and found["size", "gradient_norm"] > 0
    assert -1 <= found["label", "gradient_cosine/size"] <= 1 and found["label", "gradient_cosine/size"] == found["size", "gradient_cosine/label"]
    plain, = make(runs="plain", **ONE, datasets={"a": {"reader": generated(chosen=("label", "size"))}}, train={"epochs": 1, "batch_size": 8}).run()
    assert plain.identity == run.identity and all(torch.equal(value, weights(run)[key]) for key, value in weights(plain).items())


class Costly(torch.nn.Module):
    def __init__(self, inner, cost):
        super().__init__()
        self.inner, self.cost = inner, cost

    def forward(self, inputs, lengths=None):
        return self.inner(inputs, lengths)

    def costs(self):
        return {"size": self.cost * sum((p**2).sum() for p in self.parameters())}


@dataclass(frozen=True, kw_only=True)
class Decaying(Trunk):
    """Its cost is what weight decay does."""

    inner: Any = param(component="trunk", help="network")
    cost: float = param(0.0, help="of squared parameters")

    def build(self, shapes):
        return Costly(self.inner.component.build(shapes), self.cost)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_costs_of_a_trunk_are_learned_once_per_update(make, registry, accumulate):
    train = {"epochs": 1, "batch_size": 6, "accumulate": accumulate, "optimizer": {"use": "sgd", "lr": 0.1}}
    inner = registry.make("trunk", {"use": "core.mlp", "hidden": [8]})
    decay = {"trunks.*": {"lr": 0.1}}
    costly, = make(runs="costly", **ONE, model={"trunk": Decaying(inner=inner, cost=0.05)}, train=train).run()
    plain, = make(runs="plain", **ONE, model={"trunk": Decaying(inner=inner)}, train={**train, "parameters": decay,
                  "optimizer": {"use": "sgd", "lr": 0.1, "weight_decay": 0.1}}).run()
    for key, value in weights(costly).items():
        if key.startswith("trunks."):
            assert not torch.equal(value, first(costly)[key])
    row, = (row for row in costly.folder.metrics("train") if row["metric"] == "cost/main.size")
    assert row["value"] > 0
    # heads have no cost but decay: compare the trunk after one update, where heads were the same
    a, b = (make(runs=f"{name}1", **ONE, model={"trunk": trunk}, train={**options, "epochs": None,
        "updates": 1}).run()[0] for name, trunk, options in (
        ("costly", Decaying(inner=inner, cost=0.05), train),
        ("plain", Decaying(inner=inner), {**train, "optimizer": {"use": "sgd", "lr": 0.1, "weight_decay": 0.1}})))
    assert all(torch.allclose(value, weights(b)[key], atol=1e-6) for key, value in weights(a).items() if key.startswith("trunks."))


def test_out_of_memory_stops_or_halves(make, monkeypatch):
    whole = GradientRun.compute

    def compute(self, batch):
        if len(batch.clips) > 4 and self.update == 3:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
        return whole(self, batch)

    plain = trained(make, "plain")
    monkeypatch.setattr(GradientRun, "compute", compute)
    with pytest.raises(TrainingError, match=r"out of memory at update 3 \(epoch 1\) with 8 rows, tasks label, clips a/c\d+, .*on_memory"):
        trained(make, "stop")
    run = trained(make, "halve", on_memory="halve")
    assert "each micro-batch is cut into 2" in (run.folder.path / "run.log").read_text()
    assert all(torch.allclose(value, weights(plain)[key], atol=1e-5) for key, value in weights(run).items())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, while it traces
def test_a_compiled_network_goes_backward_for_each_task(make, generated, monkeypatch):
    real, found = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="aot_eager"))  # a compiler is not everywhere
    for compiled in (False, True):
        run, = make(runs=f"compiled {compiled}", **ONE, datasets={"a": {"reader": generated(chosen=("label", "size"))}},
                    train={"epochs": 1, "batch_size": 8, "inspect": 1, "compile": compiled}).run()
        found.append(weights(run))
    assert all(torch.allclose(value, found[1][key], atol=1e-6) for key, value in found[0].items())


def test_compiled_is_near(make, monkeypatch):
    called = []
    monkeypatch.setattr(torch, "compile", lambda model: called.append(model) or model)  # a compiler is not everywhere
    run = trained(make, "compiled", compile=True)
    assert called and all(torch.equal(value, weights(trained(make, "plain"))[key]) for key, value in weights(run).items())


def test_a_checkpoint_of_another_version_says_what_it_lacks(make):
    run = trained(make, "older")
    path = run.folder.checkpoint("last")
    state = load_checkpoint(path)
    del state["extra"], state["parts"]
    torch.save(state, path)
    run.folder.update_info(status="interrupted")
    with pytest.raises(DataError, match="found one without extra, parts; remove the run's folder"):
        trained(make, "older")


def test_layers_that_thaw_are_balanced(make, generated):
    """The matrix of gradients grows; nothing that learns is an error of its own."""
    datasets = {"a": {"reader": generated(chosen=("label", "size"))}}
    changes = {"epochs": 2, "batch_size": 8, "balancer": "balancers.pcgrad", "inspect": 1}
    run, = make(runs="thaw", **ONE, datasets=datasets, train={**changes, "parameters": {"trunks.*": {"frozen": 1}}}).run()
    assert run.done and not any(torch.equal(value, first(run)[key]) for key, value in weights(run).items())
    with pytest.raises(ExperimentError, match="nothing is left that learns in epoch 1"):
        make(runs="all", **ONE, datasets=datasets, train={**changes, "parameters": {"*": {"frozen": True}}}).run()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_leaves_the_others_alone(make, jobs):
    content = {"datasets": {"a": {"reader": {"use": "core.tones", "count": 24}}}, "vary": {"train.optimizer.lr": [1e-4, 1e30, 2e-4]},
               "train": {"epochs": 2, "batch_size": 4, "optimizer": {"use": "sgd", "lr": 0.1}}}
    experiment = make(runs=f"jobs{jobs}", jobs=jobs, **ONE, **content)
    with pytest.raises(TrainingError, match=r"(?s)1 of 3 runs failed:.*1e\+30.*not finite"):
        experiment.run()
    assert [run.done for run in experiment.runs()] == [True, False, True]


def test_a_run_is_trained_by_one_process_at_a_time(make):
    run, = make(**ONE).runs()
    with run.folder.locked(), pytest.raises(DataError, match="another process trains this run"):
        make(**ONE).run()


def test_what_diverges_in_the_last_update_is_no_result(make):
    with pytest.raises(TrainingError, match="not finite for validation clips"):
        trained(make, "diverged", epochs=None, updates=1, optimizer={"use": "sgd", "lr": 1e35})


def test_rates_thaw_nothing_that_the_network_keeps_frozen():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    freeze(network, {"1.*": SimpleNamespace(lr=0.1, frozen=False), "2.*": SimpleNamespace(lr=None, frozen=1)}, 1)
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True, False, False]
    freeze(network, {"2.*": SimpleNamespace(lr=None, frozen=1)}, 2)
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True, True, True]


def test_no_checkpoint_holds_weights_that_are_not_finite(make):
    with pytest.raises(TrainingError, match="weights are not finite after update 1 .*The last good checkpoint is"):
        make(runs="far", **ONE, train={"epochs": 1, "batch_size": 8, "save": {"updates": 1}, "optimizer": {"use": "sgd", "lr": 1e38}}).run()
