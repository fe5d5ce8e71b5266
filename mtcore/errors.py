"""Every error mtcore raises on purpose. Each knows the exit code the command line ends with.

A message says what was expected, what was found, where, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ClipError", "DataError", "ExperimentError", "LeakError", "MtcoreError", "ParameterError", "PluginError",
           "TrainingError", "UnknownComponent", "at"]


class MtcoreError(Exception):
    """Root of all errors raised on purpose."""

    exit_code = 1


class DataError(MtcoreError):
    """Recordings or annotations are not as expected (exit code 1)."""


class ClipError(DataError):
    """One clip cannot be used: unreadable, empty, truncated, too short. Extraction collects these and names the clips."""


class TrainingError(MtcoreError):
    """Training cannot go on, for instance because a loss is not finite (exit code 1)."""


class ExperimentError(MtcoreError, ValueError):
    """The call or the experiment file is wrong (exit code 2)."""

    exit_code = 2


class ParameterError(ExperimentError):
    """A component's parameters contradict each other or the data they meet, for instance an FFT shorter than its frame."""


class UnknownComponent(ExperimentError, LookupError):
    """No installed plugin provides a component of this name."""


class LeakError(ExperimentError):
    """The same group or the same audio would lie in two parts."""


class PluginError(MtcoreError):
    """A plugin is at fault (exit code 3)."""

    exit_code = 3


@contextmanager
def at(place: str) -> Iterator[None]:
    """Puts a place (a key path, a step, a clip) in front of the message of a `MtcoreError` that leaves the block."""
    try:
        yield
    except MtcoreError as error:
        if place:
            error.args = (f"{place}: {error}", *error.args[1:])
        raise
