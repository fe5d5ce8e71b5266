"""What a run of estimators leaves in its folder. Nothing of it is executable."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mtcore.plugin import DataError, ExperimentError, PluginError, Task
from mtcore.training.checkpoint import atomic

__all__ = ["read_fitted", "read_rows", "skops", "write_fitted", "write_rows"]

BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile)
"""What reading files that are not as expected raises."""


def write_rows(path: Path, taught: Mapping[str, np.ndarray]) -> None:
    with atomic(path) as aside, open(aside, "wb") as file:
        np.savez(file, **taught)


def read_rows(path: Path, tasks: Mapping[str, Task]) -> dict[str, np.ndarray]:
    keys = ["x", "seed", "timed", *(f"{what}/{name}" for name in tasks for what in ("rows", "targets"))]
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in keys}
    except BROKEN as error:
        raise DataError(f"{path}: expected the rows that estimators were fitted on, found {type(error).__name__}: {error}; "
                        "remove the run's folder and run again") from error


def skops() -> Any:
    try:
        return import_module("skops.io")  # an extra
    except ImportError as error:
        raise PluginError(f"train.trainer.keep: expected the library skops, found none that can be imported ({error}); "
                          'pip install "mtcore-trainers[skops]"') from error


def write_fitted(path: Path, timed: list[str], fitted: Mapping[str, Any]) -> list[str]:
    """Give the types that skops will not read unless they are trusted."""
    with atomic(path) as aside:
        skops().dump({"timed": timed, "fitted": dict(fitted)}, aside)
    return skops().get_untrusted_types(file=path)


def read_fitted(path: Path, tasks: Mapping[str, Task], trust: bool) -> tuple[list[str], dict[str, Any]]:
    """Names of inputs with a time axis, and fitted estimators. Raises `ExperimentError` for types that skops does not trust."""
    library, unknown = skops(), []
    try:
        unknown = library.get_untrusted_types(file=path)
        found = library.load(path, trusted=unknown if trust else [])
        return list(found["timed"]), {name: found["fitted"][name] for name in tasks}
    except (*BROKEN, library.exceptions.UntrustedTypesFoundException) as error:
        if unknown and not trust:
            raise ExperimentError(f"{path}: expected types that skops trusts, found {', '.join(unknown)}, which might do harm; "
                                  "only with --trust are they read") from error
        raise DataError(f"{path}: expected estimators as skops writes them, found {type(error).__name__}: {error}; "
                        "remove the run's folder and run again") from error
