"""Discriminators against the trunks: what each update does, what the trunks still tell, and what a cut leaves as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from mtcore_trainers.adversarial import confusion
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

import mtcore
from mtcore.plugin import Clip, Lazy, MtcoreError, Reader, Task
from mtcore.runfolder import RunFolder
from mtcore.training.gradient import load_checkpoint

TRAINER = {"use": "trainers.adversarial", "tasks": ["odd"], "form": "discriminator", "rise": 2.0}
BOTH = {"a": {"chosen": ("label", "odd")}}
PARTIAL = {"a": {"chosen": ("odd", "label"), "missing": 3}, "b": {"chosen": ("size",), "offset": 100, "clips_": 24}}


@pytest.mark.parametrize("task, shape", [(Task.multiclass("t", "abcd"), (5, 4)), (Task.binary("t"), (5,)),
                                         (Task.multilabel("t", "abc"), (5, 3))], ids=lambda one: getattr(one, "kind", ""))
def test_confusion_is_the_cross_entropy_with_equal_shares(task, shape):
    """Of torch, with targets that are probabilities; least where all outputs are equal."""
    output = torch.randn(shape)
    if task.kind == "multiclass":
        expected = F.cross_entropy(output, torch.full_like(output, 0.25), reduction="none")
    else:
        p = output.double().sigmoid().reshape(5, -1)
        expected = -(0.5 * p.log() + 0.5 * (1 - p).log()).mean(1).float()
    assert torch.allclose(confusion(task, output), expected, atol=1e-6)
    assert torch.allclose(confusion(task, torch.ones_like(output) * (task.kind == "multiclass")),
                          torch.full((5,), np.log(4 if task.kind == "multiclass" else 2)).float())


@pytest.mark.parametrize("steps, clip", [(1, None), (3, 0.05)])
def test_an_update_by_hand(make, seen, steps, clip):
    """SGD: the nuisance's head goes down its own loss so many times, then all else down the other loss and the confusion."""
    run, = make({**TRAINER, "factor": 0.7, "rise": 0.0, "steps": steps}, {"a": {"chosen": ("label", "odd"), "missing": 4}},
                {"epochs": None, "updates": 1, "batch_size": 8, "accumulate": 4, "clip": clip,
                 "optimizer": {"use": "sgd", "lr": 1.0}},
                model={"trunk": {"use": "core.mlp", "hidden": [8]}}).run()
    [(trainer, _, micro)] = seen
    model, after = run.model(run.data()), load_checkpoint(run.folder.checkpoint("last"))["model"]
    assert len(micro) > 1

    def learn(parameters, loss_of):
        losses = {name: 0.0 for name in ("label", "odd")}
        rows = {name: sum(len(batch.targets[name]) for batch in micro) for name in losses}
        for batch in micro:
            output = model(batch.inputs, batch.lengths, batch.rows).tasks
            for name, values in loss_of(output, batch).items():
                losses[name] = losses[name] + values.sum() / rows[name]
        gradients = torch.autograd.grad(sum(losses.values()), parameters)
        scale = 1.0 if clip is None else min(1.0, clip / float(torch.cat([g.flatten() for g in gradients]).norm()))
        for parameter, gradient in zip(parameters, gradients):
            parameter.data -= scale * gradient

    odd = list(model.heads["odd"].parameters())
    others = [one for one in model.parameters() if all(one is not other for other in odd)]
    for _ in range(steps):
        learn(odd, lambda output, batch: {"odd": trainer.setup.losses["odd"](output["odd"], batch.targets["odd"], batch)})
    learn(others, lambda output, batch: {
        "label": F.cross_entropy(output["label"], batch.targets["label"], reduction="none"),
        "odd": 0.7 * F.binary_cross_entropy_with_logits(output["odd"], torch.full_like(output["odd"], 0.5), reduction="none")})
    for name, value in model.named_parameters():
        assert torch.allclose(value.detach(), after[name], atol=1e-5), name


def test_figures_are_of_the_discriminator_and_of_the_confusion(make):
    """Before the first update: the discriminator's own loss, as in a run of plain gradient descent, and the confusion."""
    given = {"readers": BOTH, "train": {"epochs": None, "updates": 1, "batch_size": 64}, "model": {"trunk": {"use": "core.mlp"}}}
    found = []
    for trainer in (TRAINER | {"rise": 0.0}, "gradient"):
        run, = make(trainer, **given, runs=str(len(found))).run()
        found.append({(line["task"], line["metric"]): line["value"] for line in run.folder.metrics("train")})
    assert found[0]["odd", "loss"] == pytest.approx(found[1]["odd", "loss"], rel=1e-5)
    assert found[0]["label", "loss"] == pytest.approx(found[1]["label", "loss"], rel=1e-5)
    assert set(found[0]) - set(found[1]) == {("odd", "confusion")} and found[0]["odd", "confusion"] >= np.log(2) - 1e-6


def test_normalisations_count_a_batch_once_and_frozen_heads_stay(make, seen):
    run, = make({**TRAINER, "steps": 2}, BOTH, {"epochs": 2, "parameters": {"heads.odd.*": {"frozen": 1}}},
                model={"trunk": {"use": "core.cnn", "channels": [4]}}).run()
    last = load_checkpoint(run.folder.checkpoint("last"))["model"]
    counted = [value for name, value in last.items() if name.endswith("num_batches_tracked")]
    assert counted and all(value == len(seen) for value in counted)
    first = run.model(run.data()).state_dict()
    moved = {name for name in last if name.startswith("heads.odd") and not torch.equal(first[name], last[name])}
    assert moved  # in the second epoch alone
    assert all(parameter.requires_grad for parameter in seen[0][0].model.parameters())


# What trunks still tell -----------------------------------------------------------------------------------------------


def heard(number):
    """A tone for the label, another one for the device."""
    time, rng = np.arange(400) / 2000, np.random.default_rng(number)
    x = np.sin(2 * np.pi * (150, 300, 450)[number % 3] * time) + np.sin(2 * np.pi * (650, 850)[number // 3 % 2] * time)
    return (x + 0.3 * rng.standard_normal(len(time))).astype(np.float32)[None], 2000.0


@dataclass(frozen=True, kw_only=True)
class Devices(Reader):
    generated = True
    default_group = "take"

    def tasks(self, root):
        return [Task.multiclass("label", ("low", "middle", "high")), Task.binary("device")]

    def clips(self, root):
        for i in range(180):
            yield Clip(f"c{i}", Lazy(heard, (i,), key=f"device-{i}"),
                       {"label": ("low", "middle", "high")[i % 3], "device": i // 3 % 2 == 1}, {"take": f"g:{i}"})


def told(run):
    """Accuracy on the test part of a linear probe that learns the device from the training part's representations, and of the
    label's head."""
    data, model = run.data(), run.model(run.data())
    model.load_state_dict(load_checkpoint(run.folder.checkpoint("last"))["model"])
    found = {}
    with torch.no_grad():
        for part in ("train", "test"):
            batch = data.rows(part).batch(range(len(data.rows(part))))
            output = model.eval()(batch.inputs, batch.lengths, batch.rows)
            found[part] = output.representation["main"].vector.numpy(), batch.targets["device"].numpy()
            label = (output.tasks["label"].argmax(1) == batch.targets["label"]).double().mean().item()
    return LogisticRegression(max_iter=1000).fit(*found["train"]).score(*found["test"]), label


def test_a_linear_probe_tells_the_nuisance_no_longer(make):
    train = {"epochs": 30, "batch_size": 16, "optimizer": {"use": "adam", "lr": 0.01}}
    given = {"datasets": {"a": {"reader": Devices()}}, "split": {"folds": 1, "validation": 0.0, "test": 0.4},
             "model": {"trunk": {"use": "core.mlp", "hidden": [16, 4]}}}
    adversary = {**TRAINER, "tasks": ["device"], "steps": 3, "factor": 3.0}
    plain, unlearned = (told(make(trainer, runs=name, train={**train, "trainer": trainer}, **given).run()[0])
                        for name, trainer in (("plain", "gradient"), ("adversary", adversary)))
    assert plain[0] > 0.95 and unlearned[0] < 0.7 and unlearned[1] > 0.9  # 0.5 by chance


# As any trainer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [{}, {"accumulate": 2, "scheduler": {"use": "cosine"}, "balancer": "core.sum", "average": 0.9}],
                         ids=str)
def test_it_continues_with_partial_labels(continues, train):
    continues({**TRAINER, "steps": 2}, cuts=(2, 5), readers=PARTIAL, train={"epochs": 2} | train)


def test_variations_without_the_nuisance_are_plain_gradient_descent(make):
    given = {"readers": BOTH, "train": {"epochs": 1}, "vary": {"tasks": ["singles"]}}
    for one, plain in zip(make(TRAINER, **given).run(), make("gradient", **given, runs="plain").run(), strict=True):
        assert (one.folder.path / "metrics.jsonl").read_text() == (plain.folder.path / "metrics.jsonl").read_text()
        assert "warning: nothing is unlearned" in (one.folder.path / "run.log").read_text()


@pytest.mark.parametrize("trainer, says", [
    ({**TRAINER, "tasks": ["size"]}, "a discriminator tells tasks of kind binary, multiclass, multilabel; size is of kind reg"),
    ({**TRAINER, "form": "reversal", "steps": 2}, "steps: expected 1 with form = \"reversal\""),
    ({**TRAINER, "steps": 0}, "steps")])
def test_what_makes_no_sense(make, trainer, says):
    for act in ("check", "run"):
        with pytest.raises(MtcoreError, match=says) as caught:
            getattr(make(trainer, {"a": {"chosen": ("label", "size", "odd")}}), act)()
        assert caught.value.exit_code == 2


FILE = """
name = "spread"
datasets.tones.reader = {{use = "core.tones", count = 24}}
datasets.chords.reader = {{use = "core.chords", count = 16}}
inputs.main = {{extractor = {{use = "core.spectrogram", hop = 0.05}}, steps = ["core.standardize"]}}
split = {{folds = 1}}
model.trunk = {{use = "core.cnn", channels = [4], batch_norm = false}}
report.reporters = []
[train]
epochs = 1
batch_size = 4
accumulate = {accumulate}
sampler = "alternating"
optimizer = {{use = "sgd", lr = 0.05}}
trainer = {{use = "trainers.adversarial", form = "discriminator", tasks = ["timbre"], steps = 2, rise = 0.0}}
"""


def test_two_processes_are_one(tmp_path):
    """With batches of one dataset each, a process lacks the nuisance in some."""
    (tmp_path / "one.toml").write_text(FILE.format(accumulate=4))
    (tmp_path / "two.toml").write_text(FILE.format(accumulate=2))
    mtcore.Experiment.from_file(tmp_path / "one.toml", cache=tmp_path / "cache", runs_folder=tmp_path / "one").run()
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "mtcore", "run",
                    str(tmp_path / "two.toml"), "--runs", str(tmp_path / "two"), "--cache", str(tmp_path / "cache")],
                   env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    found = []
    for name in ("one", "two"):
        folder, = (tmp_path / name).glob("spread/run*")
        figures = {(line["task"], line["metric"]): line["value"] for line in RunFolder(folder).metrics("train")}
        found.append((load_checkpoint(folder / "checkpoints" / "last.pt")["model"], figures))
    (one, figures), (two, others) = found
    assert all(torch.allclose(one[key], two[key], atol=1e-5) for key in one) and ("timbre", "confusion") in figures
    assert figures.keys() == others.keys() and all(figures[key] == pytest.approx(others[key], rel=1e-4) for key in figures)
