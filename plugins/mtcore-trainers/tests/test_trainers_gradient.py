"""Trainers that build on gradient descent, each in small experiments: what an update sees, and what a cut leaves as it was."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from mtcore_trainers.adversarial import Reverse
from mtcore_trainers.batches import only

from mtcore.plugin import Batch, MtcoreError, Representation, Trunk
from mtcore.training.gradient import load_checkpoint

TWO = {"a": {"chosen": ("label", "size"), "missing": 3}, "b": {"chosen": ("tags",), "offset": 100, "clips_": 24}}
ADVERSARIAL = {"use": "trainers.adversarial", "tasks": ["odd"], "rise": 2.0}
STAGES = {"use": "trainers.pretrain_finetune", "stages": [
    {"epochs": 1, "tasks": ["tags"]}, {"epochs": 2, "tasks": ["label"], "freeze": ["trunks.*"], "rate": 0.5}, {"epochs": 1}]}


def lines(run, **wanted):
    return [line for line in run.folder.metrics() if all(line[key] == value for key, value in wanted.items())]


def test_only_the_rows_of_some_tasks():
    batch = Batch({"x": torch.arange(10.0).view(5, 2)},
                  {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3, 4, 5]), "c": torch.arange(5)},
                  {"a": torch.tensor([4, 1]), "b": torch.tensor([0, 1, 3]), "c": slice(0, 5)}, list("vwxyz"),
                  {"x": torch.arange(5)}, {"t": {"a": torch.arange(5.0)}})
    found = only(batch, ["a", "b"])
    assert found.clips == list("vwyz") and found.lengths["x"].tolist() == found.teachers["t"]["a"].tolist() == [0, 1, 3, 4]
    clips = {task: [found.clips[row] for row in rows] for task, rows in found.rows.items()}
    assert clips == {"a": ["z", "w"], "b": ["v", "w", "y"]}
    assert torch.equal(found.inputs["x"][found.rows["a"]], batch.inputs["x"][[4, 1]]) and found.targets["b"].tolist() == [3, 4, 5]
    assert only(batch, ["c"]).rows["c"].tolist() == list(range(5)) and only(batch, ["d"]) is None


# Alternate ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [{"sampler": "mixed"}, {"sampler": "alternating", "accumulate": 2}], ids=str)
def test_each_update_learns_one_task_and_figures_are_of_its_rows(make, seen, train):
    run, = make("trainers.alternate", TWO, train).run()
    rows, sizes = Counter(), Counter()
    for _, epoch, micro in seen:
        (task,) = {name for batch in micro for name in batch.rows}
        assert all(len(batch.targets[task]) == len(batch.clips) for batch in micro)
        rows[epoch, task] += sum(len(batch.clips) for batch in micro)
        sizes[task] = max(sizes[task], sum(len(batch.clips) for batch in micro))
    for epoch in (1, 2, 3):
        assert {task for e, task in rows if e == epoch} == {"label", "size", "tags"} == {
            line["task"] for line in lines(run, part="train", epoch=epoch)}
    if train["sampler"] == "mixed":  # all tasks in almost every batch: shares are kept up to an update
        assert all(max(some) - min(some) <= max(sizes.values()) for epoch in (1, 2, 3)
                   if (some := [rows[epoch, task] for task in ("label", "size", "tags")]))


def test_the_training_loss_is_the_mean_over_the_rows_learned_from(make, seen):
    """With a rate of zero and no dropout, the model's loss over these rows can be had again."""
    run, = make("trainers.alternate", TWO, {"epochs": 1, "optimizer": {"use": "sgd", "lr": 0.0}},
                model={"trunk": {"use": "core.mlp", "hidden": [8]}}).run()
    sums = Counter()
    for trainer, _, micro in seen:
        for batch in micro:
            for task, output in trainer.model.eval()(batch.inputs, batch.lengths, batch.rows).tasks.items():
                sums[task] += float(trainer.setup.losses[task](output, batch.targets[task], batch).detach().double().sum())
                sums[task, "rows"] += len(output)
    for line in lines(run, part="train"):
        assert line["value"] == pytest.approx(sums[line["task"]] / sums[line["task"], "rows"], rel=1e-5)


@pytest.mark.parametrize("order, ratio", [("turn", 1.0), ("proportional", 0.25)])
def test_shares_of_tasks(make, seen, order, ratio):
    readers = {"a": {"chosen": ("label",), "clips_": 80}, "b": {"chosen": ("tags",), "offset": 200, "clips_": 20}}
    make({"use": "trainers.alternate", "order": order}, readers, {"epochs": 1, "sampler": "proportional", "batch_size": 10}).run()
    rows = Counter()
    for _, _, micro in seen:
        for batch in micro:
            rows.update({name: len(some) for name, some in batch.targets.items()})
    assert rows["tags"] / rows["label"] == pytest.approx(ratio, rel=0.5)


@pytest.mark.parametrize("train", [{}, {"sampler": "alternating", "accumulate": 2, "scheduler": {"use": "cosine"}}], ids=str)
def test_alternate_continues(continues, train):
    continues("trainers.alternate", readers=TWO, train=train)


# Stages ---------------------------------------------------------------------------------------------------------------


def test_stages_learn_their_tasks_and_leave_alone_what_is_frozen(make, seen):
    run, = make(STAGES, TWO, {"epochs": None}).run()
    assert run.folder.info["epoch"] == 4 and run.done
    found = {}
    for _, epoch, micro in seen:
        for batch in micro:
            found.setdefault(epoch, Counter()).update({task: len(targets) for task, targets in batch.targets.items()})
    counts = {name: one.rows for name, one in run.data().statistics().items()}
    assert [dict(found[epoch]) for epoch in (1, 2, 3, 4)] == [{"tags": counts["tags"]}, *[{"label": counts["label"]}] * 2, counts]
    assert all(len(batch.clips) == 4 for _, _, micro in seen[:counts["tags"] // 4] for batch in micro)
    told = [{line["task"] for line in lines(run, part="train", epoch=epoch)} for epoch in (1, 2, 4)]
    assert told == [{"tags"}, {"label"}, set(counts)]
    log = (run.folder.path / "run.log").read_text()
    assert "stage 2: label, without trunks.*" in log and log.count("stage ") == 3


def test_what_is_frozen_keeps_its_bits(make, monkeypatch):
    states = {}
    from mtcore_trainers.stages import StagesRun
    whole = StagesRun.epoch_done

    def epoch_done(self):
        whole(self)
        states[self.epoch] = {name: value.clone() for name, value in self.model.state_dict().items()}
        states["rate"] = self.optimizer.param_groups[0]["lr"]

    monkeypatch.setattr(StagesRun, "epoch_done", epoch_done)
    stages = [{"epochs": 1, "tasks": ["tags"]}, {"epochs": 1, "tasks": ["label"], "freeze": ["trunks.*"], "rate": 0.5}]
    make({**STAGES, "stages": stages}, TWO, {"epochs": None, "optimizer": {"use": "adam", "lr": 0.01, "weight_decay": 0.1}},
         model={"trunk": {"use": "core.cnn", "channels": [4]}}).run()  # with batch normalisation, whose statistics are frozen too
    changed = {name for name in states[1] if not torch.equal(states[1][name], states[2][name])}
    assert any("running" in name for name in states[1]) and changed and all(name.startswith("heads.label") for name in changed)
    assert states["rate"] == 0.005


def test_stages_continue(continues):
    # as many updates as the stages have: 1 in the first, then over both borders
    train = {"epochs": None, "scheduler": {"use": "cosine", "warmup": 2}}
    continues(STAGES, cuts=(1, 3, 5, 9), readers=TWO, train=train)


def test_best_is_of_the_last_stage_by_its_own_tasks(make):
    stages = [{"epochs": 2, "tasks": ["size"], "rate": 1e-9}, {"epochs": 5, "tasks": ["tags"]}]
    run, = make({**STAGES, "stages": stages}, TWO, {"epochs": None, "optimizer": {"use": "sgd", "lr": 3.0}}).run()
    values = {line["epoch"]: line["value"] for line in lines(run, part="validation", metric="loss", task="tags")}
    assert run.folder.info["best_epoch"] == min((3, 4, 5, 6, 7), key=values.get)


def test_patience_ends_the_last_stage_alone(make):
    stages = [{"epochs": 3, "tasks": ["tags"], "rate": 1e-30}, {"epochs": 9, "tasks": ["label"], "rate": 1e-30}]
    run, = make({**STAGES, "stages": stages}, TWO, {"epochs": None, "stop": {"patience": 2}}).run()
    assert run.done and (run.folder.info["best_epoch"], run.folder.info["epoch"]) == (4, 6)


@pytest.mark.parametrize("stages, train, says", [
    ([], {}, "at least one table"),
    ([{"tasks": ["label"]}], {}, r"stages\[0\].epochs: expected a whole number above 0; found nothing"),
    ([{"epochs": 1, "task": ["label"]}], {}, r"stages\[0\].task: a stage has epochs, rate, tasks, freeze"),
    ([{"epochs": 1, "tasks": "label"}], {}, "expected a list of tasks; found 'label'"),
    ([{"epochs": 1, "tasks": ["x"]}], {}, r"stages\[0\].tasks: expected tasks out of label, size; found 'x'"),
    ([{"epochs": 1, "freeze": ["trunk.*"]}], {}, "'trunk.*' is the name of no parameter; there are trunks.main"),
    ([{"epochs": 1, "freeze": ["*"]}], {}, "nothing is left to train"),
    ([{"epochs": 2}], {"epochs": 3}, "train.epochs: trainers.pretrain_finetune has 2 epochs by .*, found 3; leave it out"),
    ([{"epochs": 2}], {"updates": 30}, "train.updates: trainers.pretrain_finetune has 2 epochs by its own parameters, found 30")])
def test_stages_that_make_no_sense(make, stages, train, says):
    for act in ("check", "run"):
        with pytest.raises(MtcoreError, match=says):
            getattr(make({**STAGES, "stages": stages}, train={"epochs": None, **train}), act)()


# Adversarial ----------------------------------------------------------------------------------------------------------


def test_reversal_keeps_values_and_turns_gradients():
    x = torch.randn(3, 4, requires_grad=True)
    y = Reverse.apply(x, 0.3)
    assert torch.equal(x, y)
    (y * torch.arange(4.0)).sum().backward()
    assert torch.allclose(x.grad, -0.3 * torch.arange(4.0).expand(3, 4))


def test_trunks_get_the_reversed_gradient_and_heads_their_own(make, seen):
    """The change of weights by one update of SGD, against the two tasks' gradients taken by hand."""
    run, = make({"use": "trainers.adversarial", "tasks": ["odd"], "factor": 0.7, "rise": 0.0},
                {"a": {"chosen": ("label", "odd")}},
                {"epochs": None, "updates": 1, "batch_size": 64, "optimizer": {"use": "sgd", "lr": 1.0}},
                model={"trunk": {"use": "core.mlp", "hidden": [8]}}).run()
    [(trainer, _, [batch])] = seen
    model, after = run.model(run.data()), load_checkpoint(run.folder.checkpoint("last"))["model"]
    output = model(batch.inputs, batch.lengths, batch.rows).tasks
    losses = {name: trainer.setup.losses[name](output[name], batch.targets[name], batch).mean() for name in output}
    names, parameters = zip(*model.named_parameters())
    label, odd = (torch.autograd.grad(losses[name], parameters, retain_graph=True, allow_unused=True) for name in losses)
    for name, before, of_label, of_odd in zip(names, parameters, label, odd):
        expected = of_label - 0.7 * of_odd if name.startswith("trunks") else of_label if of_odd is None else of_odd
        assert torch.allclose(before.detach() - after[name], expected, atol=1e-5), name


def test_the_factor_rises_within_its_epochs(make, monkeypatch):
    from mtcore_trainers.adversarial import AdversarialRun
    factors = []
    monkeypatch.setattr(AdversarialRun, "one_update", lambda self, *given, whole=AdversarialRun.one_update: (
        whole(self, *given), factors.append((self.update, self.per_epoch, self.factor()))))
    make(ADVERSARIAL, {"a": {"chosen": ("label", "odd")}}).run()
    for update, per_epoch, factor in factors:
        p = min(1.0, (update - 1) / (2 * per_epoch))
        assert factor == pytest.approx(2 / (1 + math.exp(-10 * p)) - 1)
    assert factors[0][2] == 0 and factors[-1][2] > 0.999


def test_adversarial_continues_and_runs_longer(make, continues):
    readers = {"a": {"chosen": ("label", "odd")}}
    whole = continues(ADVERSARIAL, readers=readers)
    assert not any("hook" in name for name in load_checkpoint(whole.folder.checkpoint("last"))["model"])
    for epochs in (1, 3):
        longer, = make(ADVERSARIAL, readers, {"epochs": epochs, "save": {"updates": 1}}, "longer").run()
    assert (longer.folder.path / "metrics.jsonl").read_text() == (whole.folder.path / "metrics.jsonl").read_text()


def test_the_best_checkpoint_is_not_chosen_by_the_nuisance(make):
    run, = make(ADVERSARIAL, {"a": {"chosen": ("label", "odd")}}, {"epochs": 6, "optimizer": {"use": "adam", "lr": 0.05}}).run()
    values = {line["epoch"]: line["value"] for line in lines(run, part="validation", metric="loss", task="label")}
    assert run.folder.info["best_epoch"] == min(values, key=values.get)


def test_frames_are_reversed_too(make):
    run, = make({"use": "trainers.adversarial", "tasks": ["beep"]}, {"a": {"chosen": ("label", "beep")}}, {"epochs": 1},
                model={"trunk": {"use": "core.cnn", "channels": [4]}}).run()
    assert run.done


def test_nuisance_tasks_that_are_not_there(make):
    for act in ("check", "run"):
        with pytest.raises(MtcoreError, match="train.trainer.tasks: expected tasks out of label, size; found 'speaker'"):
            getattr(make({**ADVERSARIAL, "tasks": ["speaker"]}), act)()
        with pytest.raises(MtcoreError, match="expected at least one nuisance task"):
            getattr(make({**ADVERSARIAL, "tasks": []}), act)()


def test_variations_without_the_nuisance_are_plain_gradient_descent(make):
    given = {"readers": {"a": {"chosen": ("label", "odd")}}, "train": {"epochs": 1}, "vary": {"tasks": ["singles"]}}
    for one, plain in zip(make(ADVERSARIAL, **given).run(), make("gradient", **given, runs="plain").run(), strict=True):
        assert (one.folder.path / "metrics.jsonl").read_text() == (plain.folder.path / "metrics.jsonl").read_text()
        assert "warning: nothing is unlearned" in (one.folder.path / "run.log").read_text()


@pytest.mark.parametrize("trainer", ["trainers.alternate", STAGES, {**ADVERSARIAL, "tasks": ["size"]}], ids=str)
def test_with_averaged_weights_and_rates_by_pattern(continues, trainer):
    continues(trainer, cuts=(2,), readers=TWO, train={
        "epochs": None if trainer is STAGES else 2, "average": 0.9,
        "parameters": {"trunks.*": {"lr": 1e-4}, "heads.size.*": {"frozen": 1}}})


def test_rates_of_stages_and_of_patterns_are_multiplied(make, seen):
    make({**STAGES, "stages": [{"epochs": 1}, {"epochs": 1, "rate": 0.5, "freeze": ["heads.size.*"]}]}, train={
        "epochs": None, "optimizer": {"use": "sgd", "lr": 0.1}, "parameters": {"trunks.*": {"lr": 0.01}}}).run()
    run = seen[-1][0]
    rates = {id(parameter): group["lr"] for group in run.optimizer.param_groups for parameter in group["params"]}
    named = dict(run.model.named_parameters())
    assert {rates[id(value)] for name, value in named.items() if name.startswith("trunks")} == {0.005}
    assert {rates[id(value)] for name, value in named.items() if name.startswith("heads")} == {0.05}
    assert all(value.requires_grad != name.startswith("heads.size") for name, value in named.items())


class Kept(torch.nn.Module):
    def __init__(self, values):
        super().__init__()
        self.fixed, self.free = torch.nn.Linear(values, 4).requires_grad_(False), torch.nn.Linear(4, 4)

    def forward(self, inputs, lengths=None):
        return Representation(self.free(self.fixed(inputs["main"].mean((1, 3)))))


@dataclass(frozen=True, kw_only=True)
class KeptFrozen(Trunk):
    def build(self, shapes):
        return Kept(shapes["main"][1])


def test_stages_thaw_nothing_that_the_network_itself_keeps_frozen(make):
    run, = make(STAGES, TWO, {"epochs": None}, model={"trunk": KeptFrozen()}).run()
    first, last = run.model(run.data()).state_dict(), load_checkpoint(run.folder.checkpoint("last"))["model"]
    assert torch.equal(first["trunks.main.fixed.weight"], last["trunks.main.fixed.weight"])
    assert not torch.equal(first["trunks.main.free.weight"], last["trunks.main.free.weight"])
