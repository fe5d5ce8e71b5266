"""Values against torch and the papers' formulas written out; shares, extremes and gradients; runs through the public door."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_losses.angular import ArcFace, Cosine
from mtcore_losses.probability import Asymmetric, Focal, GeneralizedCrossEntropy
from mtcore_losses.regression import Concordance, Huber
from torch.nn import functional as F

import mtcore
from mtcore.plugin import Batch, Clip, Event, Lazy, ParameterError, Reader, Representation, RepresentationShape, Statistics, Task, TrainingError
from mtcore.testing import parametrize_checks

LABELS, TAGS, EVENTS = Task.multiclass("c", "abcd"), Task.multilabel("m", "abc"), Task.events("e", "ab")
BINARY, VALUE, ARRAY = Task.binary("b"), Task.regression("r"), Task.array("a", (2, 3))
OF_PROBABILITY = [Focal(), Focal(gamma=0.5), Asymmetric(), Asymmetric(positive=0.5, negative=0.5, margin=0.0),
                  GeneralizedCrossEntropy(), GeneralizedCrossEntropy(q=1.0)]
few = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 999)


@parametrize_checks("losses")
def test_conformance(check):
    check()


def rows_of(loss, task, output, target, counts=None, rows=None, lengths=None):
    batch = Batch({}, {}, rows or {}, [], None if lengths is None else {"main": torch.tensor(lengths)})
    return loss.build(task, Statistics(rows=len(target), counts=counts))(output, target, batch)


def example(task, rows=6, hard=True, seed=0):
    """Output and target as the loop gives them."""
    torch.manual_seed(seed)
    if task.kind == "multiclass":
        shares = torch.rand(rows, len(task.labels))
        return 3 * torch.randn(rows, len(task.labels)), shares.argmax(1) if hard else shares / shares.sum(1, keepdim=True)
    shape = {"binary": (rows,), "multilabel": (rows, len(task.labels)), "events": (rows, len(task.labels), 5)}[task.kind]
    return 3 * torch.randn(shape), torch.randint(2, shape).float() if hard else torch.rand(shape)


# Probabilities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("task", [BINARY, TAGS, EVENTS])
@pytest.mark.parametrize("loss", [Focal(gamma=0.0), Asymmetric(positive=0.0, negative=0.0, margin=0.0)])
def test_without_powers_they_are_binary_cross_entropy(loss, task, hard):
    output, target = example(task, hard=hard)
    found = rows_of(loss, task, output.requires_grad_(), target)
    expected = F.binary_cross_entropy_with_logits(output, target)
    assert found.shape == (6,)
    torch.testing.assert_close(found.mean(), expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, output)[0] for value in (found.mean(), expected)))


@pytest.mark.parametrize("counts", [None, [3, 1, 0, 2]])
@pytest.mark.parametrize("hard", [True, False])
def test_focal_with_gamma_0_is_cross_entropy(hard, counts):
    output, target = example(LABELS, hard=hard)
    loss = Focal(gamma=0.0, class_weights="balanced" if counts else "none")
    found = rows_of(loss, LABELS, output.requires_grad_(), target, counts and np.array(counts))
    weight = counts and torch.tensor([6 / (3 * count) if count else 0.0 for count in counts])
    expected = F.cross_entropy(output, target, weight=weight, reduction="none")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), output)[0] for value in (found, expected)))


@few
@given(seeds, st.floats(0, 5))
def test_focal_is_the_papers_formula(seed, gamma):
    output, target = example(LABELS, seed=seed)
    output = output.double()
    p = output.softmax(1)[torch.arange(6), target]
    loss = Focal(gamma=gamma)
    torch.testing.assert_close(rows_of(loss, LABELS, output, target), -(1 - p) ** gamma * p.log(), rtol=1e-4, atol=1e-5)
    output, target = example(TAGS, seed=seed)
    output, target = output.double(), target.double()
    p = torch.where(target == 1, output.sigmoid(), 1 - output.sigmoid())
    torch.testing.assert_close(rows_of(loss, TAGS, output, target), (-(1 - p) ** gamma * p.log()).mean(1), rtol=1e-4, atol=1e-5)


@few
@given(seeds, st.floats(0, 3), st.floats(0, 5), st.floats(0, 0.5))
def test_asymmetric_is_the_papers_formula(seed, positive, negative, margin):
    output, target = example(TAGS, seed=seed)
    p = output.sigmoid()
    shifted = (p - margin).clamp(min=0)
    expected = torch.where(target == 1, -(1 - p) ** positive * p.log(), -shifted ** negative * (1 - shifted).log()).mean(1)
    loss = Asymmetric(positive=positive, negative=negative, margin=margin)
    torch.testing.assert_close(rows_of(loss, TAGS, output, target), expected, rtol=1e-4, atol=1e-5)


def test_asymmetric_drops_negatives_below_the_margin():
    output, target = torch.tensor([[-4.0, -5.0, -9.0]], requires_grad=True), torch.zeros(1, 3)
    found = rows_of(Asymmetric(margin=0.05), TAGS, output, target)
    assert found.item() == 0 and not torch.autograd.grad(found.sum(), output)[0].any()
    assert rows_of(Asymmetric(margin=0.01), TAGS, output, target).item() > 0


@few
@given(seeds, st.floats(0.01, 1))
def test_generalized_cross_entropy_is_the_papers_formula_between_its_limits(seed, q):
    output, target = example(LABELS, seed=seed)
    p = output.softmax(1)[torch.arange(6), target]
    found = rows_of(GeneralizedCrossEntropy(q=q), LABELS, output, target)
    torch.testing.assert_close(found, (1 - p ** q) / q, rtol=1e-4, atol=1e-5)
    assert (found <= F.cross_entropy(output, target, reduction="none") + 1e-5).all() and (found >= 1 - p - 1e-5).all()
    torch.testing.assert_close(rows_of(GeneralizedCrossEntropy(q=1.0), LABELS, output, target), 1 - p)


@few
@given(st.sampled_from(OF_PROBABILITY), st.sampled_from([LABELS, BINARY, TAGS, EVENTS]), seeds)
def test_one_hot_shares_are_labels_and_costs_are_linear_in_shares(loss, task, seed):
    if task.kind not in loss.kinds:
        return
    output, target = example(task, seed=seed)
    _, other = example(task, seed=seed + 1)
    if task is LABELS:
        hard = rows_of(loss, task, output, target)
        target, other = (F.one_hot(one, 4).float() for one in (target, other))
        torch.testing.assert_close(rows_of(loss, task, output, target), hard)
    mixed = rows_of(loss, task, output, 0.3 * target + 0.7 * other)
    torch.testing.assert_close(mixed, 0.3 * rows_of(loss, task, output, target) + 0.7 * rows_of(loss, task, output, other))


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("task", [LABELS, BINARY, TAGS, EVENTS], ids=lambda task: task.kind)
@pytest.mark.parametrize("loss", OF_PROBABILITY)
def test_values_and_gradients_are_finite_however_sure_the_output_is(loss, task, size):
    if task.kind not in loss.kinds:
        return
    output, target = example(task)
    output = (size * output.sign()).requires_grad_()
    found = rows_of(loss, task, output, target)
    assert found.isfinite().all() and (found >= 0).all()
    assert torch.autograd.grad(found.sum(), output)[0].isfinite().all()


@pytest.mark.parametrize("task, counts, targets", [
    (LABELS, [4, 1, 1, 0], torch.tensor([0, 0, 0, 0, 1, 2])), (BINARY, [5, 1], torch.tensor([0.0, 0, 0, 0, 0, 1]))])
def test_balanced_labels_have_equal_shares_of_the_same_mean(task, counts, targets):
    output = torch.zeros(6, 4) if task is LABELS else torch.zeros(6)
    found = rows_of(Focal(class_weights="balanced"), task, output, targets, np.array(counts))
    torch.testing.assert_close(found.mean(), rows_of(Focal(), task, output, targets).mean())
    sums = [found[targets == label].sum() for label in targets.unique()]
    torch.testing.assert_close(torch.stack(sums), sums[0].expand(len(sums)))


def test_balanced_weights_of_multilabel_are_per_label():
    """A label that every row has, or none, leaves its loss as it is."""
    target = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    loss = Focal(class_weights="balanced").build(TAGS, Statistics(4, np.array([1, 0, 4])))
    output = torch.zeros(4, 3)
    one = float(rows_of(Focal(), BINARY, torch.zeros(1), torch.ones(1)))
    torch.testing.assert_close(loss(output, target, Batch({}, {}, {}, [])),
                               torch.tensor([2.0 + 1 + 1, 2 / 3 + 1 + 1, 2 / 3 + 1 + 1, 2 / 3 + 1 + 1]) * one / 3)


@pytest.mark.parametrize("task, counts", [(LABELS, None), (EVENTS, np.array([3, 4]))])
def test_balanced_weights_need_rows_per_label(task, counts):
    with pytest.raises(ParameterError, match=f"task {task.name}: .*class_weights = 'none'"):
        Focal(class_weights="balanced").build(task, Statistics(3, counts))


@few
@given(st.integers(1, 40), st.integers(1, 6), seeds)
def test_events_are_compared_where_they_are_heard(frames, stride, seed):
    torch.manual_seed(seed)
    target = (torch.rand(2, 2, frames) < 0.2).float()
    used = -(-frames // -(-frames // stride))  # short inputs leave several strides possible
    pooled = torch.stack([target[..., i:i + used].amax(-1) for i in range(0, frames, used)], -1)
    output = torch.randn(pooled.shape)
    if output.shape[-1] == -(-frames // stride):
        loss = GeneralizedCrossEntropy()
        torch.testing.assert_close(rows_of(loss, EVENTS, output, target), rows_of(loss, EVENTS, output, pooled))


def test_events_leave_out_padding_and_miss_nothing_without_a_whole_stride():
    torch.manual_seed(0)
    target, output = (torch.rand(3, 2, 12) < 0.3).float(), torch.randn(3, 2, 6)
    target[1, :, 7:] = 0
    found = rows_of(Focal(), EVENTS, output, target, rows={"e": torch.tensor([0, 2, 3])}, lengths=[12, 1, 7, 12])
    torch.testing.assert_close(found[1:2], rows_of(Focal(), EVENTS, output[1:2, :, :4], target[1:2, :, :7]))
    torch.testing.assert_close(found[::2], rows_of(Focal(), EVENTS, output, target)[::2])
    for frame in range(10):
        one = torch.zeros(1, 1, 10).index_fill(2, torch.tensor([frame]), 1)
        assert rows_of(Focal(), Task.events("e", "a"), torch.full((1, 1, 7), -30.0), one) > 1


# Angles ---------------------------------------------------------------------------------------------------------------


@few
@given(seeds, st.floats(0, 1.5))
def test_arcface_widens_the_true_angle(seed, margin):
    torch.manual_seed(seed)
    vectors, head = torch.randn(6, 5), Cosine().build(LABELS, RepresentationShape(5))
    cosine, target = head(Representation(vectors)).detach(), torch.arange(6) % 4
    torch.testing.assert_close(cosine, F.cosine_similarity(vectors[:, None], head.directions.detach()[None], dim=2))
    angle = cosine.acos() + margin * F.one_hot(target, 4)
    inside = (angle < math.pi).all(1)
    found = rows_of(ArcFace(margin=margin, scale=10.0), LABELS, cosine, target)
    expected = F.cross_entropy(10 * angle.cos(), target, reduction="none")
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found, rows_of(ArcFace(margin=margin, scale=10.0), LABELS, cosine, F.one_hot(target, 4).float()))
    assert (found >= F.cross_entropy(10 * cosine, target, reduction="none") - 1e-4).all()  # beyond 180° too


def test_arcface_falls_with_the_angle_and_its_gradient_is_finite_at_the_ends():
    cosine = torch.linspace(-1, 1, 201).requires_grad_()
    output, target = torch.stack([cosine, torch.zeros(201)], 1), torch.zeros(201, dtype=torch.long)
    found = rows_of(ArcFace(scale=5.0), Task.multiclass("c", "ab"), output, target)
    assert (found.diff() < 0).all() and torch.autograd.grad(found.sum(), cosine)[0].isfinite().all()


def test_arcface_takes_cosines_only():
    with pytest.raises(TrainingError, match='tasks.c.head = "losses.cosine"'):
        rows_of(ArcFace(), LABELS, torch.full((2, 4), 1.5), torch.zeros(2, dtype=torch.long))


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task, shape", [(VALUE, (5,)), (ARRAY, (5, 2, 3))])
@pytest.mark.parametrize("delta", [0.5, 2.0])
def test_huber_is_torchs(task, shape, delta):
    torch.manual_seed(0)
    output, target = 3 * torch.randn(shape), torch.randn(shape)
    found = rows_of(Huber(delta=delta), task, output, target)
    assert found.shape == (5,)
    torch.testing.assert_close(found.mean(), F.huber_loss(output, target, delta=delta))


@few
@given(seeds, st.integers(2, 40))
def test_ccc_of_the_batch_is_the_mean_over_rows(seed, rows):
    torch.manual_seed(seed)
    output, target = torch.randn(rows, dtype=torch.double, requires_grad=True), torch.randn(rows, dtype=torch.double)
    x, y = output - output.mean(), target - target.mean()
    expected = 1 - 2 * (x * y).mean() / ((x * x).mean() + (y * y).mean() + (output.mean() - target.mean()) ** 2)
    found = rows_of(Concordance(), VALUE, output, target).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, output)[0] for value in (found, expected)))


@pytest.mark.parametrize("output, target, expected", [([2.0], [5.0], 1), ([3.0, 3.0], [3.0, 3.0], 0), ([3.0, 3.0], [1.0, 5.0], 1),
                                                      ([1.0, 5.0], [1.0, 5.0], 0), ([-1.0, 1.0], [1.0, -1.0], 2)])
def test_ccc_at_its_ends(output, target, expected):
    output = torch.tensor(output, requires_grad=True)
    found = rows_of(Concordance(), VALUE, output, torch.tensor(target)).mean()
    assert found.item() == pytest.approx(expected)
    assert torch.autograd.grad(found, output)[0].isfinite().all()


@pytest.mark.parametrize("loss", [Huber(), Concordance()])
def test_shapes_must_agree(loss):
    with pytest.raises(TrainingError, match="task r: expected an output of the target's shape"):
        rows_of(loss, VALUE, torch.zeros(4, 1), torch.zeros(4))


# Runs -----------------------------------------------------------------------------------------------------------------


def sound(number):
    """Half a second of a tone whose height says everything."""
    rng = np.random.default_rng(number)
    tone = np.sin(2 * np.pi * (150 + 200 * (number % 3)) * np.arange(1000) / 2000)
    return (tone + 0.1 * rng.standard_normal(1000)).astype(np.float32)[None], 2000


@dataclass(frozen=True, kw_only=True)
class Sounds(Reader):
    """Twenty-four tones with a task of every kind."""

    generated = True

    def tasks(self, root):
        return [Task.binary("b"), LABELS, TAGS, EVENTS, VALUE]

    def clips(self, root):
        for i in range(24):
            high = i % 3 == 2
            targets = {"b": high, "c": "abc"[i % 3], "m": {"abc"[i % 3]}, "e": [Event(0.1, 0.3, "ab"[high])], "r": float(i % 3)}
            yield Clip(f"s{i}", Lazy(sound, (i,), key=f"losses-plugin-{i}"), targets)


BALANCED = {"use": "losses.focal", "class_weights": "balanced"}


@pytest.mark.parametrize("task, loss, head", [
    ("c", BALANCED, None), ("b", BALANCED, None), ("m", BALANCED, None), ("e", "losses.focal", None),
    ("b", "losses.asymmetric", None),
    ("m", "losses.asymmetric", None), ("e", "losses.asymmetric", None), ("c", "losses.generalized_cross_entropy", None),
    ("m", "losses.generalized_cross_entropy", None), ("c", "losses.arcface", "losses.cosine"), ("r", "losses.huber", None),
    ("r", "losses.ccc", None)])
def test_a_run_learns(tmp_path, task, loss, head):
    trunk = "core.cnn" if task == "e" else "core.mlp"
    size = {"channels": [8]} if task == "e" else {"hidden": [16]}
    experiment = mtcore.Experiment({
        "name": "l", "datasets": {"s": {"reader": Sounds(), "tasks": [task]}},
        "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}},
        "split": {"folds": 1, "validation": 0.2},
        "model": {"trunk": {"use": trunk, **size}}, "tasks": {task: {"loss": loss, **({"head": head} if head else {})}},
        "train": {"epochs": 8, "batch_size": 8, "optimizer": {"use": "adam", "lr": 2e-3}}, "report": {"reporters": []}},
        tmp_path, tmp_path / "runs", tmp_path / "cache")
    [run] = experiment.run()
    losses = [line["value"] for line in run.folder.metrics() if line["part"] == "train" and line["metric"] == "loss"]
    assert len(losses) == 8 and losses[-1] < losses[0]
