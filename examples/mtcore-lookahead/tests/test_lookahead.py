"""The trainer against the update written out, against plain gradient descent, and against itself, cut off."""

from __future__ import annotations

import pytest
import torch

import mtcore
from mtcore.testing import parametrize_checks
from mtcore.training.gradient import GradientRun, load_checkpoint


@parametrize_checks("lookahead")
def test_conformance(check):
    check()


class Cut(Exception):
    """In place of a kill."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(tmp_path, cache):
    """`run(trainer, folder, …)`: the one run of a small experiment with two tasks."""

    def train(trainer, folder, **changes):
        content = {"name": "tones", "datasets": {"tones": {"reader": {"use": "core.tones", "count": 30}}},
                   "inputs": {"main": {"extractor": "core.spectrogram",
                                       "steps": ["core.standardize", {"use": "core.crop_or_pad", "length": 20}]}},
                   "split": {"folds": 1, "validation": 0.2}, "model": {"trunk": {"use": "core.mlp", "hidden": [8]}},
                   "train": {"epochs": 3, "batch_size": 4, "trainer": trainer, "save": {"updates": 1}} | changes,
                   "report": {"reporters": []}}
        found, = mtcore.Experiment(content, tmp_path, tmp_path / folder, cache).run()
        return found

    return train


def weights(found, name="last"):
    return load_checkpoint(found.folder.checkpoint(name))["model"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_update_is_that_of_the_paper(run, monkeypatch):
    """Fast weights before and after each call of the inherited update, put together by hand."""
    steps, whole = [], GradientRun.one_update
    values = lambda self: [parameter.detach().clone() for parameter in self.model.parameters()]

    def one_update(self, micro, total):
        before = values(self)
        whole(self, micro, total)
        steps.append((before, values(self)))

    monkeypatch.setattr(GradientRun, "one_update", one_update)
    found = run({"use": "lookahead.lookahead", "every": 3, "share": 0.25}, "runs", updates=7, epochs=None)
    slow = steps[0][0]
    for number, (_, after) in enumerate(steps, 1):
        if number % 3 == 0:
            after = slow = [s + 0.25 * (fast - s) for s, fast in zip(slow, after)]
        then = steps[number][0] if number < len(steps) else list(weights(found).values())
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(after, then, strict=True))


def test_going_all_the_way_is_gradient_descent(run):
    assert same(weights(run({"use": "lookahead.lookahead", "share": 1.0}, "all")), weights(run("core.gradient", "plain")))


def test_it_continues_to_the_same_bits(run, monkeypatch):
    trainer, whole = {"use": "lookahead.lookahead", "every": 4}, GradientRun.one_update
    uninterrupted = run(trainer, "whole")
    for cut in (2, 3, 6):
        def one_update(self, micro, total, left=iter(range(cut))):
            if next(left, None) is None:
                raise Cut
            whole(self, micro, total)

        with monkeypatch.context() as patch, pytest.raises(Cut):
            patch.setattr(GradientRun, "one_update", one_update)
            run(trainer, "cut")
    continued = run(trainer, "cut")
    assert all(same(weights(continued, name), weights(uninterrupted, name)) for name in ("best", "last"))
    assert not same(weights(continued), weights(run("core.gradient", "plain")))
