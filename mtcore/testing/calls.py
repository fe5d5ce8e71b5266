"""Rules that extractors and preparers share: both become a function of an array, which many threads call."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, get_args

import numpy as np

from ..errors import MtcoreError
from ..plugin import Moved, Named
from ..plugin.building import Parameter, build, parameters_of
from ..streams import stream
from .kit import NotReached, Subject, expect, rule
from .sounds import arrays_of, rate_of, situations

__all__ = ["same"]

THREADS = 4
BUDGET = 0.1
"""Seconds that calls in threads may take together, unless one call takes longer."""
STEPS = 200
"""Steps of Python's machine after which others get their turn."""
LOOSE = 1e-3
"""Relative; what the number of threads below a call may change. Two calls in each other's way differ by far more."""


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal in type, shape and every byte."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _on_arrays(subject: Subject) -> bool:
    if subject.spec.kind == "extractor":
        return True
    return not getattr(subject.cls, "window", False) and subject.component.acts_on != "batch"


def _calls(subject: Subject) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray], np.ndarray]]:
    """(situation, function of an array alone, an array) of an extractor, or of a preparer in every situation that it takes."""
    if subject.spec.kind == "extractor":
        yield "", subject.component.prepare(rate_of(subject)), arrays_of(subject)[0]
        return
    for situation in situations(subject):
        prepared = subject.component.prepare(situation.context)
        state = prepared.fit(array.copy() for array in situation.arrays) if prepared.fit else {}

        def apply(x: np.ndarray) -> np.ndarray:
            result = prepared.apply(x, state, stream(0, "kit") if subject.component.random else None)
            return result.array if isinstance(result, Moved) else result

        yield f"{situation.name}: ", apply, situation.arrays[0]


def _variants(array: np.ndarray) -> list[np.ndarray]:
    """As many arrays of the same shape as there are threads."""
    return [np.ascontiguousarray(gain * (array[..., ::-1] if backwards else array), np.float32)
            for gain, backwards in ((1, False), (0.5, True), (0.8, False), (0.6, True))]


@rule("extractor", "preparer", applies=_on_arrays)
def keeps_results(subject: Subject) -> None:
    """A result stays as it is when the next array comes: its memory is not used again."""
    for situation, function, array in _calls(subject):
        first = function(array.copy())
        kept = np.copy(first)
        for other in _variants(array):
            function(other)
        expect(
            same(kept, first),
            f"{situation}a result has changed when the next one was computed; give every result an array of its own",
        )


@rule("extractor", "preparer", applies=_on_arrays)
def threads(subject: Subject) -> None:
    """Called by several threads at once, the same function gives what it gives alone: calls share no memory that they write
    to."""
    for situation, function, array in _calls(subject):
        arrays = _variants(array)
        start = time.perf_counter()
        alone = [np.copy(function(one.copy())) for one in arrays]
        spent = time.perf_counter() - start
        if not all(_close(one, function(other.copy())) for one, other in zip(alone, arrays)):
            raise NotReached("results differ from call to call without threads")
        traced, plain = 2, min(16, round(BUDGET / max(spent, 1e-6)))
        together = threading.Barrier(THREADS)

        def work(number: int) -> list[np.ndarray]:
            together.wait()
            with _giving_way(subject.cls.__module__.partition(".")[0]):
                found = [np.copy(function(arrays[number].copy())) for _ in range(traced)]
            return found + [np.copy(function(arrays[number].copy())) for _ in range(plain)]

        with ThreadPoolExecutor(THREADS) as pool:
            results = list(pool.map(work, range(THREADS)))
        wrong = sum(not _close(wanted, found) for wanted, several in zip(alone, results) for found in several)
        expect(not wrong, f"{situation}{wrong} of {THREADS * (traced + plain)} results differ when {THREADS} threads call the "
                          "function that prepare gave; let each call make the arrays that it writes to")


@contextlib.contextmanager
def _giving_way(package: str) -> Iterator[None]:
    """Between the first steps of this package's code, the other threads get their turn: what may go wrong at times goes wrong at
    once."""
    left = STEPS

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if left > 0 and frame.f_globals.get("__name__", "").partition(".")[0] == package:
            left -= 1
            frame.f_trace_opcodes = True
            time.sleep(1e-5)
            return trace
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.allclose(
        one, other, rtol=LOOSE, atol=LOOSE * float(np.abs(one).max(initial=0)), equal_nan=True
    )


@rule("extractor", "preparer")
def parameters_change_the_key(subject: Subject) -> str | None:
    """Each parameter changes the key of stores; otherwise other parameters would find these features."""
    component, unknown = subject.component, []
    for parameter in parameters_of(subject.cls):
        other = next(_others(subject, parameter), None)
        if other is None:
            unknown.append(parameter.name)
            continue
        keys = [_key(Named(subject.name, one, subject.spec.revision)) for one in (component, other)]
        expect(keys[0] != keys[1], f"{parameter.name} = {getattr(component, parameter.name)!r} and "
                                   f"{getattr(other, parameter.name)!r} give the same key; what does parameters() leave out?")
    return f"no other value known for {', '.join(unknown)}: let the example return Example(others=…)" if unknown else None


def _key(named: Named) -> str:
    return json.dumps(named.described(), sort_keys=True, default=list)


def _others(subject: Subject, parameter: Parameter) -> Iterator[Any]:
    """Components that differ in this parameter."""
    given, value = dict(subject.example.parameters), getattr(subject.component, parameter.name)
    guesses = [subject.example.others[parameter.name]] if parameter.name in subject.example.others else []
    for guess in chain(
        guesses, parameter.choices or (), get_args(parameter.type), _near(value), (1, 2, 0.5, 100.0, "1s", "x", None)
    ):
        try:
            other = build(subject.cls, {**given, parameter.name: guess}, subject.name)
        except MtcoreError:
            continue
        if getattr(other, parameter.name) != value:
            yield other


def _near(value: Any) -> Iterator[Any]:
    """Values that may be as valid."""
    yield not value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from (value + 1, value - 1, value * 1.5, value / 2)
    elif isinstance(value, (list, tuple)) and value:
        yield from (value[:-1], value[1:], value[::-1], value * 2)
        for change in map(list, zip(*map(_near, value))):
            yield type(value)(change)
