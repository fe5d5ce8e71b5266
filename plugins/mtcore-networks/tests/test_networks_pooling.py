"""Pooling heads against the formulas written out frame by frame; padding, extremes, gradients, and a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_networks.pooling import Pooling
from mtcore_networks.sequential import Crnn
from sklearn.metrics import f1_score
from torch.nn import functional as F

import mtcore
from mtcore.plugin import Clip, Lazy, ParameterError, Predictions, Reader, Representation, RepresentationShape, Task
from mtcore.training.model import build_model

POOLS = ["max", "mean", "attention", "linear_softmax", "exp_softmax"]
TASKS = [Task.binary("b"), Task.multiclass("c", "abc"), Task.multilabel("m", "abc")]
few = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def built(pool, task, values=4):
    return Pooling(pool=pool).build(task, RepresentationShape(8, values, 2)).double()


def by_hand(module, kind, frames):
    """Probability per label of one row's frames [values, frames], in numpy, frame by frame."""
    weight, bias = module.labels.weight.detach().numpy()[:, :, 0], module.labels.bias.detach().numpy()
    y, attention = [], []
    for t in range(frames.shape[1]):
        x = weight @ frames[:, t] + bias
        y.append(np.exp(x) / np.exp(x).sum() if kind == "multiclass" else 1 / (1 + np.exp(-x)))
        if module.attention is not None:
            weights, offset = (one.detach().numpy() for one in module.attention.parameters())
            attention.append(weights[:, :, 0] @ frames[:, t] + offset)
    found = np.zeros(len(bias))
    for label in range(len(bias)):
        one = [frame[label] for frame in y]
        weights = {"max": lambda: [float(value == max(one)) for value in one], "mean": lambda: [1.0] * len(one),
                   "attention": lambda: [math.exp(frame[label]) for frame in attention], "linear_softmax": lambda: one,
                   "exp_softmax": lambda: [math.exp(value) for value in one]}[module.pool]()
        found[label] = sum(w * value for w, value in zip(weights, one)) / sum(weights)
    return found / found.sum() if kind == "multiclass" else found


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
@pytest.mark.parametrize("pool", POOLS)
@given(seed=st.integers(0, 999), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4))
@few
def test_scores_are_the_papers_formulas_without_padding(pool, task, seed, lengths):
    torch.manual_seed(seed)
    module, frames = built(pool, task), torch.randn(len(lengths), 4, 9, dtype=torch.double)
    output = module(Representation(None, frames, 2, torch.tensor(lengths)))
    assert output.shape == ((len(lengths),) if task.kind == "binary" else (len(lengths), 3))
    found = Pooling(pool=pool).scores(task, output).detach().reshape(len(lengths), -1).numpy()
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(found[row], by_hand(module, task.kind, frames[row, :, :length].numpy()), rtol=1e-9)


@pytest.mark.parametrize("pool", POOLS)
def test_all_frames_count_where_nothing_is_padded(pool):
    module, frames = built(pool, TASKS[2]), torch.randn(3, 4, 6, dtype=torch.double)
    torch.testing.assert_close(module(Representation(None, frames)), module(Representation(None, frames, 1, torch.full((3,), 6))))


@pytest.mark.parametrize("size", [1.0, 1e3])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
@pytest.mark.parametrize("pool", POOLS)
def test_values_and_gradients_are_finite_however_sure_the_frames_are(pool, task, size):
    module = Pooling(pool=pool).build(task, RepresentationShape(8, 4, 1))
    frames = (size * torch.randn(3, 4, 7)).requires_grad_()
    output = module(Representation(None, frames, 1, torch.tensor([7, 1, 0])))
    loss = (F.cross_entropy(output, torch.tensor([0, 1, 2])) if task.kind == "multiclass"
            else F.binary_cross_entropy_with_logits(output, torch.ones_like(output)))
    gradients = torch.autograd.grad(loss, [frames, *module.parameters()])
    assert output.isfinite().all() and loss.isfinite() and all(one.isfinite().all() for one in gradients)
    assert not gradients[0][1, :, 1:].any() and (gradients[0].any() or size > 1)  # who is surely right learns nothing


@pytest.mark.parametrize("pool", POOLS)
def test_a_row_in_a_model_has_the_scores_that_it_has_alone(pool):
    head = Pooling(pool=pool)
    model = build_model({"main": Crnn(channels=[3], pool=[3], stride=2, hidden=3)}, {"main": ["x"]}, {"x": (1, 6, None)},
                        {"m": TASKS[2]}, {"m": head}, {"m": ["main"]}).eval()
    x, lengths = torch.randn(3, 1, 6, 11), torch.tensor([11, 4, 7])
    for row, length in enumerate(lengths):
        x[row, ..., length:] = 0
    found = model({"x": x}, {"x": lengths}, {"m": torch.tensor([2, 1])}).tasks["m"]
    for output, row in zip(found, (2, 1)):
        alone = model({"x": x[row:row + 1, ..., :lengths[row]]}).tasks["m"]
        torch.testing.assert_close(output, alone[0])


def test_a_trunk_without_frames_is_an_error():
    with pytest.raises(ParameterError, match="task m: the head pooling needs a trunk that gives frames"):
        Pooling().build(TASKS[2], RepresentationShape(8))


# A run ----------------------------------------------------------------------------------------------------------------


def sound(number):
    """A second of noise, of any length, in which a short tone is heard or not."""
    rng = np.random.default_rng(number)
    wave = 0.1 * rng.standard_normal(1600 + 200 * (number % 3))
    if number % 2:
        wave[600:900] += np.sin(2 * np.pi * 500 * np.arange(300) / 2000)
    return wave.astype(np.float32)[None], 2000


@dataclass(frozen=True, kw_only=True)
class Sounds(Reader):
    """Forty noises, half of them with a tone."""

    generated = True

    def tasks(self, root):
        return [Task.multilabel("heard", ["tone"])]

    def clips(self, root):
        for i in range(40):
            yield Clip(f"s{i}", Lazy(sound, (i,), key=f"pooled-{i}"), {"heard": {"tone"} if i % 2 else set()})


def test_a_run_with_rows_of_any_length_learns_weak_labels(tmp_path):
    experiment = mtcore.Experiment({
        "name": "p", "datasets": {"s": {"reader": Sounds()}},
        "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["standardize"]}},
        "split": {"folds": 1, "validation": 0.2}, "model": {"trunk": {"use": "core.cnn", "channels": [8], "dropout": 0.0}},
        "tasks": {"heard": {"head": "networks.pooling"}},
        "train": {"epochs": 8, "batch_size": 8, "optimizer": {"use": "adam", "lr": 1e-2}}, "report": {"reporters": []}},
        tmp_path, tmp_path / "runs", tmp_path / "cache")
    [run] = experiment.run()
    losses = [line["value"] for line in run.folder.metrics() if line["part"] == "train" and line["metric"] == "loss"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_validation_teaches_thresholds(kind):
    """The highest F1 that any threshold gives each label; only when told, and only where labels are given by thresholds."""
    rng = np.random.default_rng(3)
    task, true = Task.multilabel("m", "abc"), rng.integers(0, 2, (40, 3))
    scores = 0.3 * rng.random((40, 3)) + 0.2 * true * rng.random((40, 3))
    if kind == "binary":
        task, true, scores = Task.binary("b"), true[:, 0], scores[:, 0]
    found = Predictions(task, [str(i) for i in range(40)], scores, None, true)
    tuned = Pooling(pool="max", tune=True).tuned(task, found)
    assert isinstance(tuned, Pooling) and tuned.pool == "max"
    decided = tuned.decide(task, scores)
    for label, told, one in zip(true.reshape(40, -1).T, decided.reshape(40, -1).T, scores.reshape(40, -1).T):
        assert f1_score(label, told) == pytest.approx(max(f1_score(label, one >= threshold) for threshold in one))
    assert decided.shape == true.shape and Pooling().tuned(task, found) == Pooling()
    several = Task.multiclass("c", "abc")
    assert Pooling(tune=True).tuned(several, Predictions(several, ["0"], np.ones((1, 3)), None, np.zeros(1, int))) == Pooling(tune=True)
