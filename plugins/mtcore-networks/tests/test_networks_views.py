"""Two views of a clip: the cost as the paper writes it, and a run that learns from it alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from mtcore_networks.views import SimClr, nt_xent

from mtcore import Experiment
from mtcore.builtin.trunks import Cnn, Mlp
from mtcore.plugin import Named, ParameterError, Prepared, Preparer


@pytest.mark.parametrize(("rows", "temperature"), [(1, 0.5), (2, 0.5), (5, 0.1)])
def test_the_cost_is_equation_1_of_the_paper(rows, temperature):
    torch.manual_seed(0)
    views = torch.randn(2 * rows, 7, dtype=torch.float64)
    z = [(one / one.norm()).tolist() for one in views]
    similar = [[sum(a * b for a, b in zip(z[i], z[j])) for j in range(2 * rows)] for i in range(2 * rows)]
    total = 0.0
    for i in range(2 * rows):
        j = (i + rows) % (2 * rows)
        total -= math.log(math.exp(similar[i][j] / temperature)
                          / sum(math.exp(similar[i][k] / temperature) for k in range(2 * rows) if k != i))
    assert nt_xent(views[:rows], views[rows:], temperature).item() == pytest.approx(total / (2 * rows), rel=1e-5, abs=1e-6)


def test_tasks_see_the_first_view_alone_and_each_view_has_its_lengths():
    torch.manual_seed(0)
    network = SimClr(trunk=Named("core.cnn", Cnn(channels=[4, 6], batch_norm=False, dropout=0.0))).build(
        {"b": (1, 20, None), "a": (1, 20, None)})
    one, other = torch.randn(3, 1, 20, 40), torch.randn(3, 1, 20, 40)
    other[2, ..., 24:] = 0
    lengths = {"a": torch.tensor([40, 40, 40]), "b": torch.tensor([40, 40, 24])}
    seen = network({"a": one, "b": other}, lengths).vector
    cost = network.costs()["nt_xent"]
    assert torch.allclose(network.eval()({"a": one, "b": torch.zeros_like(other)}, lengths).vector, seen, atol=1e-6)
    network.train()({"a": one, "b": other}, {**lengths, "b": lengths["a"]})
    assert not torch.allclose(network.costs()["nt_xent"], cost)


def test_other_than_two_views_are_refused():
    trunk = Named("core.mlp", Mlp(hidden=[4]))
    for shapes in ({"a": (3,)}, {"a": (3,), "b": (4,)}, {"a": (3,), "b": (3,), "c": (3,)}):
        with pytest.raises(ParameterError, match="two inputs of one shape"):
            SimClr(trunk=trunk).build(shapes)


@dataclass(frozen=True, kw_only=True)
class Jitter(Preparer):
    """Noise on features, another one for each input."""

    acts_on = "feature"
    random = True

    def prepare(self, context):
        return Prepared(lambda x, state, rng: x + 0.3 * rng.standard_normal(x.shape, dtype=np.float32), context.shape, axis=context.axis)


def test_a_trunk_learns_from_views_alone(tmp_path):
    """The task weighs nothing, so the cost is all there is to learn from."""
    view = {"extractor": {"use": "core.spectrogram", "hop": 0.05}, "steps": ["core.standardize", Jitter()]}
    run, = Experiment(
        {"name": "views", "datasets": {"tones": {"reader": {"use": "core.tones", "count": 48}, "tasks": ["timbre"]}},
         "inputs": {"one": view, "two": view}, "split": {"folds": 1, "validation": 0.2}, "tasks": {"timbre": {"weight": 0.0}},
         "model": {"trunk": {"use": "networks.simclr", "trunk": {"use": "core.cnn", "channels": [4, 6]}}},
         "train": {"epochs": 4, "batch_size": 16}, "report": {"reporters": []}}, tmp_path, tmp_path / "runs", tmp_path / "cache").run()
    costs = [row["value"] for row in run.folder.metrics("train") if row["metric"] == "cost/main.nt_xent"]
    assert len(costs) == 4 and costs[-1] < 0.9 * costs[0]
