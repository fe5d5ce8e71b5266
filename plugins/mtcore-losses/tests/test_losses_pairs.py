"""Distillation against torch.distributions, the contrastive loss against its formula pair by pair; runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_losses.contrastive import Contrastive, Projection, supervised
from mtcore_losses.distillation import Distill
from mtcore_losses.probability import Focal
from mtcore_losses.regression import Huber
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn import functional as F

import mtcore
from mtcore.errors import ExperimentError
from mtcore.plugin import (
    Batch,
    Clip,
    Event,
    Lazy,
    MtcoreError,
    ParameterError,
    Predictions,
    Reader,
    Representation,
    RepresentationShape,
    Statistics,
    Task,
    TrainingError,
)

LABELS, TAGS, EVENTS = Task.multiclass("c", "abcd"), Task.multilabel("m", "abc"), Task.events("e", "ab")
BINARY, VALUE, ARRAY = Task.binary("b"), Task.regression("r"), Task.array("a", (2, 3))
SHAPES = {"multiclass": (4,), "binary": (), "multilabel": (3,), "events": (2, 6), "regression": (), "array": (2, 3)}
TASKS = [LABELS, BINARY, TAGS, EVENTS, VALUE, ARRAY]
few = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def example(task, seed=0):
    """Of three rows output and target, a batch of five with a teacher's outputs, and those of the rows."""
    torch.manual_seed(seed)
    shape, rows = SHAPES[task.kind], torch.tensor([0, 2, 3])
    output, teacher = 3 * torch.randn(3, *shape), 3 * torch.randn(5, *shape)
    target = {"multiclass": torch.tensor([0, 3, 1]), "regression": torch.randn(3), "array": torch.randn(3, *shape),
              "events": torch.randint(2, (3, 2, 12)).float()}.get(task.kind, torch.randint(2, (3, *shape)).float())
    batch = Batch({}, {task.name: target}, {task.name: rows}, [], None, {"big": {task.name: teacher}})
    return output.requires_grad_(), target, batch, teacher[rows]


def soft(task, output, teacher, temperature=1.0):
    output, teacher = (one.double() / temperature for one in (output, teacher))  # of floats torch calls a sure one infinite
    if task.kind == "multiclass":
        return (temperature ** 2 * kl_divergence(Categorical(logits=teacher), Categorical(logits=output))).float()
    found = kl_divergence(Bernoulli(logits=teacher), Bernoulli(logits=output))
    return (temperature ** 2 * (found.flatten(1).mean(1) if found.dim() > 1 else found)).float()


def hard(task, output, target):
    if task.kind == "multiclass":
        return F.cross_entropy(output, target, reduction="none")
    if task.kind == "events":
        target = F.max_pool1d(target, 2)
    function = F.mse_loss if task.kind in ("regression", "array") else F.binary_cross_entropy_with_logits
    found = function(output, target, reduction="none")
    return found.flatten(1).mean(1) if found.dim() > 1 else found


# Distillation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
@given(seed=st.integers(0, 999), temperature=st.floats(0.5, 8), share=st.floats(0, 1))
@few
def test_distillation_is_hintons_of_each_kind(task, seed, temperature, share):
    output, target, batch, teacher = example(task, seed)
    found = Distill(teacher="big", temperature=temperature, share=share).build(task, Statistics(3))(output, target, batch)
    if task.kind in ("regression", "array"):
        taught = F.mse_loss(output, teacher, reduction="none").flatten(1 if task is ARRAY else 0)
        taught = taught.mean(1) if task is ARRAY else taught
    else:
        taught = soft(task, output, teacher, temperature)
    expected = share * taught + (1 - share) * hard(task, output, target)
    assert found.shape == (3,)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(v.sum(), output, retain_graph=True)[0] for v in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_gradients_hardly_depend_on_a_high_temperature():
    """What the square of the temperature is for."""
    output, target, batch, _ = example(LABELS)
    losses = [Distill(teacher="big", temperature=t, share=1.0).build(LABELS, Statistics(3)) for t in (20.0, 40.0)]
    size = [torch.autograd.grad(loss(output, target, batch).sum(), output)[0].norm() for loss in losses]
    torch.testing.assert_close(*size, rtol=0.1, atol=0)


@pytest.mark.parametrize("task", [LABELS, BINARY, TAGS, EVENTS], ids=lambda task: task.kind)
def test_who_agrees_with_the_teacher_learns_nothing_however_sure_both_are(task):
    output, target, batch, teacher = example(task)
    loss = Distill(teacher="big", share=1.0).build(task, Statistics(3))
    alike = teacher.clone().requires_grad_()
    found = loss(alike, target, batch)
    torch.testing.assert_close(found, torch.zeros(3), atol=1e-5, rtol=0)
    assert torch.autograd.grad(found.sum(), alike)[0].abs().max() < 1e-5
    sure = (1e4 * output.detach().sign()).requires_grad_()
    batch.teachers["big"][task.name] *= 1e4
    found = loss(sure, target, batch)
    assert found.isfinite().all() and (found > -1e-3).all() and torch.autograd.grad(found.sum(), sure)[0].isfinite().all()


def test_padding_and_slices():
    output, target, batch, _ = example(EVENTS)
    batch.rows["e"], batch.lengths = slice(1, 4), {"main": torch.tensor([12, 12, 7, 12, 12])}
    found = Distill(teacher="big", temperature=1.0, share=1.0).build(EVENTS, Statistics(3))(output, target, batch)
    teacher = batch.teachers["big"]["e"]
    torch.testing.assert_close(found[1:2], soft(EVENTS, output[1:2, :, :4], teacher[2:3, :, :4]))
    torch.testing.assert_close(found[::2], soft(EVENTS, output[::2], teacher[1:4:2]))


def test_a_teacher_of_events_may_speak_of_each_frame_of_the_input():
    output, target, batch, _ = example(EVENTS)
    batch.rows["e"], batch.lengths = slice(1, 4), {"main": torch.tensor([12, 12, 7, 12, 12])}
    teacher = batch.teachers["big"]["e"] = torch.randn(5, 2, 12)
    teacher[2, :, 6] = -3.0
    teacher[2, :, 7:] = 0  # padding, which is no opinion
    found = Distill(teacher="big", temperature=1.0, share=1.0).build(EVENTS, Statistics(3))(output, target, batch)
    pooled = F.max_pool1d(teacher, 2)
    torch.testing.assert_close(found[::2], soft(EVENTS, output[::2], pooled[1:4:2]))
    own = torch.cat([pooled[2:3, :, :3], teacher[2:3, :, 6:7]], 2)
    torch.testing.assert_close(found[1:2], soft(EVENTS, output[1:2, :, :4], own))


def test_the_hard_part_is_a_loss_of_its_own():
    output, target, batch, teacher = example(LABELS)
    for loss in ("losses.focal", {"use": "losses.focal", "gamma": 3.0}, "torch.nn:MultiMarginLoss"):
        made = mtcore.get_registry().make("loss", {"use": "losses.distill", "teacher": "big", "temperature": 1.0, "loss": loss})
        found = made.component.build(LABELS, Statistics(3))(output, target, batch)
        if isinstance(loss, dict) or loss == "losses.focal":
            own = Focal(gamma=3.0 if isinstance(loss, dict) else 2.0).build(LABELS, Statistics(3))(output, target, batch)
        else:
            own = F.multi_margin_loss(output, target, reduction="none")
        torch.testing.assert_close(found, 0.5 * soft(LABELS, output, teacher) + 0.5 * own)
    assert made.described()["loss"]["use"] == "torch.nn:MultiMarginLoss"
    with pytest.raises(ExperimentError, match="tasks.c.loss.loss.gama"):
        wrong = {"use": "losses.distill", "teacher": "big", "loss": {"use": "losses.focal", "gama": 1}}
        mtcore.get_registry().make("loss", wrong, "tasks.c.loss")
    with pytest.raises(ParameterError, match="task c: the hard part serves regression"):
        Distill(teacher="big", loss=Huber()).build(LABELS, Statistics(3))


def test_what_the_teacher_lacks_is_named():
    output, target, batch, _ = example(LABELS)
    with pytest.raises(ParameterError, match=r"task c: expected outputs of the teacher 'small' for this task, found big \(c\)"):
        Distill(teacher="small").build(LABELS, Statistics(3))(output, target, batch)
    with pytest.raises(ParameterError, match="found no teachers"):
        Distill(teacher="big").build(LABELS, Statistics(3))(output, target, Batch({}, {}, {"c": torch.arange(3)}, []))
    batch.teachers["big"]["c"] = torch.zeros(5, 3)
    with pytest.raises(ParameterError, match=r"of the shape \(3, 4\), found \(3, 3\)"):
        Distill(teacher="big").build(LABELS, Statistics(3))(output, target, batch)


# Contrastive ----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 999), rows=st.integers(1, 9), temperature=st.floats(0.05, 2))
@few
def test_the_contrastive_loss_is_khoslas_pair_by_pair(seed, rows, temperature):
    rng = np.random.default_rng(seed)
    z, labels = rng.standard_normal((rows, 5)), rng.integers(3, size=rows)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    expected = []
    for i in range(rows):
        others = [a for a in range(rows) if a != i]
        whole = sum(math.exp(z[i] @ z[a] / temperature) for a in others)
        own = [math.log(math.exp(z[i] @ z[p] / temperature) / whole) for p in others if labels[p] == labels[i]]
        expected.append(-sum(own) / len(own) if own else 0.0)
    found = supervised(torch.tensor(z), F.one_hot(torch.tensor(labels), 3).double(), temperature)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_two_rows_of_each_label_are_a_cross_entropy_over_partners():
    z = F.normalize(torch.randn(8, 5))
    found = supervised(z, F.one_hot(torch.arange(8) % 4).float(), 0.1)
    expected = F.cross_entropy((z @ z.T / 0.1).fill_diagonal_(-torch.inf), (torch.arange(8) + 4) % 8, reduction="none")
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("task", [LABELS, BINARY], ids=lambda task: task.kind)
def test_loss_and_head_fit_and_the_probe_teaches_the_trunk_nothing(task):
    torch.manual_seed(0)
    module = Projection(values=6, hidden=8).build(task, RepresentationShape(5))
    vector = torch.randn(7, 5, requires_grad=True)
    target = torch.tensor([0, 1, 1, 0, 1, 0, 1])
    target = target if task is LABELS else target.float()
    output = module(Representation(vector))
    found = Contrastive().build(task, Statistics(7))(output, target, Batch({}, {}, {}, []))
    assert found.shape == (7,)
    logits, embedding = (output[:, :4], output[:, 4:]) if task is LABELS else (output[:, 0], output[:, 1:])
    probe = (F.cross_entropy if task is LABELS else F.binary_cross_entropy_with_logits)(logits, target, reduction="none")
    alone = supervised(embedding, F.one_hot(target.long(), 4).float(), 0.1)
    torch.testing.assert_close(found, alone + probe)
    torch.testing.assert_close(*(torch.autograd.grad(v.sum(), vector, retain_graph=True)[0] for v in (found, alone)))
    assert torch.autograd.grad(found.sum(), module.probe.weight)[0].any()
    scores = Projection().scores(task, output)
    torch.testing.assert_close(scores, logits.softmax(1) if task is LABELS else logits.sigmoid())
    assert Projection().decide(task, scores.detach().numpy()).shape == (7,)


def test_one_hot_shares_are_labels_and_gradients_are_finite_without_pairs():
    module = Projection(values=6, hidden=0).build(LABELS, RepresentationShape(5))
    loss = Contrastive().build(LABELS, Statistics(4))
    for rows in (1, 4):
        vector = torch.randn(rows, 5, requires_grad=True)
        output, target = module(Representation(vector)), torch.arange(rows)
        found = loss(output, target, Batch({}, {}, {}, []))
        torch.testing.assert_close(found, F.cross_entropy(output[:, :4], target, reduction="none"))
        torch.testing.assert_close(found, loss(output, F.one_hot(target, 4).float(), Batch({}, {}, {}, [])))
        assert torch.autograd.grad(found.sum(), vector)[0].isfinite().all()


@pytest.mark.parametrize("task, output", [(LABELS, torch.randn(3, 4)), (LABELS, 5 * torch.randn(3, 9)), (BINARY, torch.randn(3))])
def test_the_contrastive_loss_takes_the_projection_only(task, output):
    with pytest.raises(TrainingError, match=f'tasks.{task.name}.head = "losses.projection"'):
        Contrastive().build(task, Statistics(3))(output, torch.zeros(3, dtype=torch.long), Batch({}, {}, {}, []))


def sound(number):
    rng = np.random.default_rng(number)
    tone = np.sin(2 * np.pi * (150 + 200 * (number % 3)) * np.arange(1000) / 2000)
    return (tone + 0.1 * rng.standard_normal(1000)).astype(np.float32)[None], 2000


@dataclass(frozen=True, kw_only=True)
class Tones(Reader):
    """Thirty-six tones of three heights."""

    generated = True

    def tasks(self, root):
        return [Task.multiclass("height", "abc"), Task.events("heard", ["tone"]), Task.regression("hertz")]

    def clips(self, root):
        for i in range(36):
            yield Clip(f"s{i}", Lazy(sound, (i,), key=f"pairs-{i}"), {
                "height": "abc"[i % 3], "heard": [Event(0.0, 0.5, "tone")], "hertz": 150.0 + 200 * (i % 3)})


@pytest.fixture
def made(tmp_path):
    return lambda name, **more: mtcore.Experiment({
        "name": name, "datasets": {"s": {"reader": Tones()}}, "split": {"folds": 1, "validation": 0.2},
        "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}},
        "model": {"trunk": {"use": "core.cnn", "channels": [4]}}, "report": {"reporters": []},
        "train": {"epochs": 4, "batch_size": 12, "optimizer": {"use": "adam", "lr": 1e-2}}, **more},
        tmp_path, tmp_path / "runs", tmp_path / "cache")


def test_without_its_teacher_the_experiment_is_wrong(made):
    for act in ("check", "run"):
        with pytest.raises(MtcoreError, match="height: expected outputs of the teacher 'large' .*, found no teachers") as caught:
            getattr(made("alone", tasks={"height": {"loss": {"use": "losses.distill", "teacher": "large"}}}), act)()
        assert caught.value.exit_code == 2


def test_a_run_learns_from_another(made):
    [teacher] = made("teacher").run()
    distill = {"loss": {"use": "losses.distill", "teacher": "large", "share": 1.0}}
    [student] = made("student", teachers={"large": {"run": str(teacher.folder.path)}},
                     tasks={"height": distill, "heard": distill, "hertz": distill}).run()
    losses = [line["value"] for line in student.folder.metrics() if line["part"] == "train" and line["metric"] == "loss"]
    assert len(losses) == 12 and sum(losses[-3:]) < sum(losses[:3])


def test_a_contrastive_run_learns_labels(tmp_path):
    experiment = mtcore.Experiment({
        "name": "l", "datasets": {"s": {"reader": Tones(), "tasks": ["height"]}},
        "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}},
        "split": {"folds": 1, "validation": 0.2}, "model": {"trunk": {"use": "core.mlp", "hidden": [16]}},
        "tasks": {"height": {"loss": "losses.contrastive", "head": {"use": "losses.projection", "values": 8, "hidden": 0}}},
        "train": {"epochs": 15, "batch_size": 12, "optimizer": {"use": "adam", "lr": 1e-2}}, "report": {"reporters": []}},
        tmp_path, tmp_path / "runs", tmp_path / "cache")
    [run] = experiment.run()
    lines = run.folder.metrics()
    losses = [line["value"] for line in lines if line["part"] == "train" and line["metric"] == "loss"]
    assert losses[-1] < losses[0]
    assert [line["value"] for line in lines if line["part"] == "test" and line["metric"] == "accuracy"][-1] > 0.8


def test_the_projection_head_learns_its_threshold_on_validation():
    scores, true = np.array([0.1, 0.2, 0.25, 0.3]), np.array([0, 0, 1, 1])
    tuned = Projection(tune=True).tuned(BINARY, Predictions(BINARY, list("abcd"), scores, None, true))
    assert tuned.thresholds == [pytest.approx(0.225)] and tuned.decide(BINARY, scores).tolist() == true.tolist()
