"""Checkpoints: written while training goes on, whole or not at all, and read without running code."""

from __future__ import annotations

import pickle
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from ..errors import DataError
from ..runfolder import atomic

__all__ = ["KEPT", "Checkpoints", "atomic", "copied", "load_checkpoint"]

KEPT = frozenset({"epoch", "update", "best", "best_epoch", "partial", "parts", "model", "optimizer", "schedule", "scaling", "balancing", "extra"})
"""What a checkpoint holds to continue from."""


class Checkpoints:
    """Writes one after the other in a thread; `wait` until all are on disk."""

    def __init__(self):
        self.thread = ThreadPoolExecutor(1)
        self.last: Future | None = None

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """`state` is copied now."""
        self.wait()
        self.last = self.thread.submit(_write, path, copied(state))

    def wait(self) -> None:
        if self.last is not None:
            self.last.result()


def copied(state: Any) -> Any:
    """The same with tensors of its own, on the CPU."""
    return tree_map_only(torch.Tensor, lambda one: one.detach().to("cpu", copy=True), state)


def _write(path: Path, state: dict[str, Any]) -> None:
    with atomic(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, needed: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What training saved, on the CPU; runs no code. Raises `DataError` where it is none, or lacks what is needed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: expected a checkpoint of numbers, words and tensors, found something else, which was not loaded as it might run "
                        "code; remove the run's folder and run again") from error
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(f"{path}: expected a checkpoint, found {type(error).__name__}: {error}; "
                        "remove the run's folder and run again") from error
    if lacking := needed - state.keys():
        raise DataError(f"{path}: expected a checkpoint of this version of mtcore, found one without {', '.join(sorted(lacking))}; remove "
                        "the run's folder and run again, or go on with the version that run.json names")
    return state
