"""What a run does not wait for before its first update: torch's compiler, which torch's own optimizers import."""

from __future__ import annotations

import copy
import functools
import inspect
import subprocess
import sys

import pytest
import torch

from mtcore.training.optimizers import build_optimizer

NAMES = sorted(name for name, value in vars(torch.optim).items()
               if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and name not in ("Optimizer", "LBFGS", "SparseAdam"))


def network():
    torch.manual_seed(0)
    shape = torch.nn.Linear(4, 3, bias=False), torch.nn.Linear(3, 2, bias=False)  # Muon takes matrices only
    return torch.nn.Sequential(*shape)


def trained(model, optimizer, updates=4):
    generator = torch.Generator().manual_seed(1)
    for _ in range(updates):
        optimizer.zero_grad()
        (model(torch.randn(8, 4, generator=generator)) ** 2).mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_of_torch_does_what_it_does_without_us(name):
    cls, mine, theirs = getattr(torch.optim, name), network(), network()
    fused = {"fused": True} if "fused" in inspect.signature(cls).parameters else {}
    one, other = build_optimizer({"use": name.lower(), "lr": 0.01}, mine), cls(theirs.parameters(), lr=0.01, **fused)
    assert isinstance(one, cls) and type(one).__name__ == name
    assert all(map(torch.equal, trained(mine, one), trained(theirs, other)))
    assert torch.is_grad_enabled()
    again = build_optimizer({"use": name.lower(), "lr": 0.5}, mine)
    again.load_state_dict(copy.deepcopy(other.state_dict()))
    torch.testing.assert_close(again.state_dict(), one.state_dict(), rtol=0, atol=0)
    assert all(map(torch.equal, trained(mine, again), trained(theirs, other)))


def test_torchs_classes_stay_as_they_are_and_hooks_are_called_once():
    before, called = {name: torch.optim.SGD.__dict__.get(name) for name in dir(torch.optim.SGD)}, []
    model = network()
    optimizer = build_optimizer({"use": "sgd", "lr": 0.1}, model)
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    trained(model, optimizer, 2)
    assert called == ["before", "after"] * 2
    assert before == {name: torch.optim.SGD.__dict__.get(name) for name in dir(torch.optim.SGD)}


def test_what_others_put_around_a_step_is_called(monkeypatch):
    real, called = torch.optim.SGD.step, []

    @functools.wraps(real)
    def watched(self, closure=None):
        called.append(self)
        return real(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    model = network()
    optimizer = build_optimizer({"use": "sgd", "lr": 0.1}, model)
    trained(model, optimizer, 2)
    assert called == [optimizer] * 2


def test_a_run_imports_no_compiler(tmp_path):
    code = """
import sys
from mtcore import Experiment
for epochs in (1, 2):  # the second continues the first
    [run] = Experiment({"name": "light", "datasets": {"a": {"reader": {"use": "core.tones", "count": 20}}},
                        "inputs": {"main": {"extractor": "core.spectrogram"}}, "split": {"folds": 1}, "model": {"trunk": "core.mlp"},
                        "train": {"epochs": epochs}}, runs_folder="runs", cache="cache").run()
    assert run.folder.info["status"] == "done" and run.folder.info["epoch"] == epochs
print(sorted({"torch._dynamo", "torch._inductor", "sklearn", "pandas", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
