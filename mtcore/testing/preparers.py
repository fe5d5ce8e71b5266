"""Rules for preparers, in every situation (sound, features, values) that the preparer accepts."""

from __future__ import annotations

import io
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ClipError
from ..plugin import Moved, Prepared
from ..plugin.building import build
from ..streams import stream
from .calls import same
from .kit import CheckFailed, Subject, expect, rule
from .sounds import Situation, situations

__all__: list[str] = []

TOLERANCE = 1e-4
"""Relative; what orders of summation may change."""
STREAMS = 2000
"""Random streams under which a random step must do something else at least once."""
PATIENCE = 1.0
"""Seconds after which a slow step is tried with no further ones."""


def _windows(subject: Subject) -> bool:
    return bool(getattr(subject.cls, "window", False))


def _acts(subject: Subject) -> bool:
    """On single arrays. What acts on batches has no rules yet."""
    return not _windows(subject) and subject.component.acts_on != "batch"


def _again(subject: Subject, situation: Situation) -> Prepared:
    """Prepared anew by a new instance."""
    return build(subject.cls, subject.example.parameters, subject.name).prepare(situation.context)


def _state(subject: Subject, prepared: Prepared, arrays: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    if not subject.component.fitted:
        return {}
    expect(prepared.fit is not None, "fitted is True, but prepare gives no fit")
    return prepared.fit(array.copy() for array in arrays)


def _rng(subject: Subject, number: int = 0) -> np.random.Generator | None:
    return stream(0, "kit", number) if subject.component.random else None


def _apply(prepared: Prepared, array: np.ndarray, state: dict, rng: Any, seed: int = 0) -> np.ndarray:
    """`seed` is that of all random numbers which a step must not use."""
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(seed)
    result = prepared.apply(array, state, rng)
    return result.array if isinstance(result, Moved) else result


def _close(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> str:
    """What differs between two states, "" where nothing does."""
    if one.keys() != other.keys():
        return f"{', '.join(one)} and {', '.join(other)}"
    for key in one:
        a, b = np.asarray(one[key]), np.asarray(other[key])
        if a.shape != b.shape or not np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE * float(np.abs(a).max(initial=0))):
            return f"{key}: {a.ravel()[:3]} … and {b.ravel()[:3]} …"
    return ""


def _tried(subject: Subject) -> Iterator[tuple[Situation, Prepared, dict]]:
    """All situations, with the step prepared and fitted."""
    for situation in situations(subject):
        prepared = subject.component.prepare(situation.context)
        yield situation, prepared, _state(subject, prepared, situation.arrays)


@rule("preparer", applies=_acts)
def shape(subject: Subject) -> None:
    """Results have the shape that `prepare` announced (None: any size), applied and in the form for other parts."""
    for situation, prepared, state in _tried(subject):
        announced = prepared.shape(state) if callable(prepared.shape) else prepared.shape
        for number, array in enumerate(situation.arrays):
            results = {"apply": _apply(prepared, array, state, _rng(subject, number))}
            if prepared.off:
                off = prepared.off(array, state)
                results["off"] = off.array if isinstance(off, Moved) else off
            for what, result in results.items():
                expect(
                    isinstance(result, np.ndarray),
                    f"{situation.name}: {what} gives {type(result).__name__}, expected a numpy array",
                )
                fits = len(announced) == result.ndim and all(
                    size in (None, found) for size, found in zip(announced, result.shape)
                )
                expect(fits, f"{situation.name}: of {array.shape}, {what} gives {result.shape}; announced is {announced}")


@rule("preparer", applies=_acts)
def finite(subject: Subject) -> None:
    """Finite for ordinary arrays and for silence (zeros), or a ClipError."""
    for situation, prepared, state in _tried(subject):
        for what, array in (("an ordinary array", situation.arrays[0]), ("zeros", np.zeros_like(situation.arrays[0]))):
            try:
                result = _apply(prepared, array, state, _rng(subject))
            except ClipError:
                continue
            expect(
                np.isfinite(result).all(),
                f"{situation.name}: {np.count_nonzero(~np.isfinite(result))} of {result.size} values of {what} are not finite",
            )


@rule("preparer", applies=_acts)
def pure(subject: Subject) -> None:
    """`apply` changes neither the array nor the state, and gives the same bytes again: after other arrays, and by another
    instance; and others for other arrays."""
    for situation, prepared, state in _tried(subject):
        array, others = situation.arrays[0], situation.arrays[1:]
        before, kept = array.copy(), {key: np.copy(value) for key, value in state.items()}
        first = np.copy(_apply(prepared, array, state, _rng(subject)))
        expect(same(before, array), f"{situation.name}: the array that was given has changed; work on a copy of it")
        changed = [key for key in kept if key not in state or not same(kept[key], np.asarray(state[key]))]
        expect(not changed and kept.keys() == state.keys(), f"{situation.name}: the state has changed: {', '.join(changed)}")
        for other in others:
            _apply(prepared, other, state, _rng(subject, 1))
        expect(same(first, _apply(prepared, array, state, _rng(subject))), f"{situation.name}: another result after other arrays")
        expect(same(first, _apply(_again(subject, situation), array, state, _rng(subject))),
               f"{situation.name}: another instance with the same parameters gives another result")
        others = (0.5 * array[..., ::-1], array + situation.arrays[-1].std() * (np.arange(array.size) % 7).reshape(array.shape))
        others = [np.ascontiguousarray(other, np.float32) for other in others]
        expect(
            any(not same(first, _apply(prepared, other, state, _rng(subject))) for other in others),
            f"{situation.name}: three arrays of one shape give the same result; if results are remembered, know them by their"
            " values",
        )


@rule("preparer", applies=lambda subject: _acts(subject) and subject.component.fitted)
def fits_on_training_only(subject: Subject) -> None:
    """What `fit` gives depends on the arrays it gets and on nothing that was applied or fitted before."""
    for situation, prepared, state in _tried(subject):
        part, rest = situation.arrays[:-2], situation.arrays[-2:]
        fresh = _state(subject, _again(subject, situation), part)
        for array in rest:
            _apply(prepared, 10 * array, state, _rng(subject))
        found = _close(fresh, _state(subject, prepared, part))
        expect(not found, f"{situation.name}: fitted after other arrays were applied, the state differs in {found}")


@rule("preparer", applies=lambda subject: _acts(subject) and subject.component.fitted)
def fits_in_any_order(subject: Subject) -> None:
    """What `fit` gives does not depend on the order of clips, but for rounding."""
    for situation, prepared, state in _tried(subject):
        found = _close(state, _state(subject, prepared, situation.arrays[::-1]))
        expect(not found, f"{situation.name}: fitted in reverse order, the state differs in {found}")


@rule("preparer", applies=lambda subject: _acts(subject) and subject.component.fitted)
def fit_sums_equals(subject: Subject) -> None:
    """`fit_sums`, where there is one, gives from the store's sums what `fit` gives from the arrays."""
    from ..plugin import Sums

    for situation, prepared, state in _tried(subject):
        if prepared.fit_sums is None or situation.hop is None:
            continue
        of = lambda function: np.stack([function(array.astype(np.float64)) for array in situation.arrays])
        sums = Sums(
            np.array([array.shape[-1] for array in situation.arrays]),
            of(lambda x: x.sum(-1)),
            of(lambda x: np.square(x).sum(-1)),
            of(lambda x: x.min(-1)),
            of(lambda x: x.max(-1)),
        )
        found = prepared.fit_sums(sums)
        difference = _close(state, found) if found is not None else ""
        expect(not difference, f"{situation.name}: fit and fit_sums differ in {difference}")


@rule("preparer", applies=lambda subject: _acts(subject) and subject.component.fitted)
def state_without_pickle(subject: Subject) -> None:
    """The state is a dict of numpy arrays without objects; saved and loaded, it gives the same results."""
    for situation, prepared, state in _tried(subject):
        named = isinstance(state, dict) and all(isinstance(key, str) for key in state)
        expect(named, f"{situation.name}: expected a dict of arrays by name, found {type(state).__name__}")
        wrong = [key for key, value in state.items() if not isinstance(value, np.ndarray) or value.dtype.hasobject]
        found = ", ".join(f"{key}: {type(state[key]).__name__}" for key in wrong)
        expect(not wrong, f"{situation.name}: expected numpy arrays of numbers, found {found}; wrap single numbers in np.array")
        buffer = io.BytesIO()
        np.savez(buffer, **state)
        buffer.seek(0)
        with np.load(buffer, allow_pickle=False) as saved:
            loaded = dict(saved)
        one, other = (np.copy(_apply(prepared, situation.arrays[0], known, _rng(subject))) for known in (state, loaded))
        expect(same(one, other), f"{situation.name}: with the saved state the result differs")


@rule("preparer", applies=_acts)
def draws_from_its_stream(subject: Subject) -> None:
    """A random step draws from `rng` alone: the same stream gives the same bytes, other streams not always the same; a step
    that is not random uses no random numbers at all."""
    for situation, prepared, state in _tried(subject):
        array = situation.arrays[0]
        results = [np.copy(_apply(prepared, array, state, _rng(subject), seed)) for seed in (1, 2)]
        expect(
            same(*results),
            f"{situation.name}: the same stream gives different results; draw from the rng that apply is given, not from "
            "numpy.random, random or torch",
        )
        if subject.component.random:
            start, number = time.perf_counter(), 0  # the effect may be rare
            while (
                alike := same(results[0], _apply(prepared, array, state, _rng(subject, number := number + 1)))
            ) and number < STREAMS:
                if number > 32 and time.perf_counter() - start > PATIENCE:
                    break
            expect(not alike, f"{situation.name}: random is True, but {number} streams give one result; let the example return "
                              "Example(parameters=…) with which it does something")
            plain = [prepared.off(array, state) if prepared.off else array for _ in range(2)]
            plain = [np.copy(one.array if isinstance(one, Moved) else one) for one in plain]
            expect(same(*plain), f"{situation.name}: `off`, the form for other parts, is not deterministic")


@rule("preparer", applies=_acts)
def time_is_true(subject: Subject) -> None:
    """What happens at t is, in the result, where rate, axis and `Moved` say: events follow by them."""
    for situation, prepared, state in _tried(subject):
        after = 1 / prepared.rate if prepared.rate else prepared.axis.hop if prepared.axis else None
        if situation.hop is None or after is None:
            continue
        base = np.zeros_like(situation.arrays[0]) if situation.context.rate else situation.arrays[0]
        tolerance = 2 * max(situation.hop, after) if situation.context.axis or prepared.axis else max(0.02, 2 * after)
        for share in (0.2, 0.5, 0.8):
            place = int(share * base.shape[-1])
            marked = base.copy()
            marked[..., place] += 1 if situation.context.rate else 5
            quiet = np.copy(_apply(prepared, base, state, _rng(subject)))
            loud, by, speed = (
                result if isinstance(result := prepared.apply(marked, state, _rng(subject)), Moved) else (result, 0.0, 1.0)
            )
            if quiet.shape != loud.shape or not (np.isfinite(quiet).all() and np.isfinite(loud).all()):
                continue  # nothing to compare, or another rule's matter
            change = np.abs(loud - quiet).reshape(-1, loud.shape[-1]).max(axis=0)
            if not change.any():
                continue  # cut away or masked
            first = prepared.axis.first if prepared.axis else 0.0
            wanted = (situation.first + place * situation.hop - by) * speed
            centre = change @ np.arange(len(change)) / change.sum()  # of what a long average spreads evenly
            found = min((first + after * index for index in (int(change.argmax()), centre)), key=lambda time: abs(time - wanted))
            expect(
                abs(found - wanted) <= tolerance,
                f"{situation.name}: what is at {situation.first + place * situation.hop:.3f} s is "
                f"found at {found:.3f} s; rate, axis and Moved say {wanted:.3f} s",
            )


@rule("preparer", applies=_windows)
def windows(subject: Subject) -> None:
    """`count` windows, each of the announced length and inside the array; later ones begin later."""
    for situation in situations(subject):
        prepared = subject.component.prepare(situation.context)
        if prepared.count is None or prepared.slice is None:
            raise CheckFailed("window is True, but prepare gives no count and slice")
        state = _state(subject, prepared, situation.arrays)
        for array in situation.arrays:
            try:
                cuts = [prepared.slice(array.shape, i, state) for i in range(prepared.count(array.shape, state))]
            except ClipError:
                continue
            expect(cuts, f"{situation.name}: no window in {array.shape}; expected a ClipError or one window at least")
            inside = all(0 <= first and frames > 0 and first + frames <= array.shape[-1] for first, frames in cuts)
            expect(inside, f"{situation.name}: of {array.shape}, windows (first, frames) {cuts} do not lie inside")
            expect(all(a[0] < b[0] for a, b in zip(cuts, cuts[1:])), f"{situation.name}: windows {cuts} are not in order")
            announced = prepared.shape(state) if callable(prepared.shape) else prepared.shape
            expect(
                all(announced[-1] in (None, frames) for _, frames in cuts),
                f"{situation.name}: announced are windows of {announced[-1]}, found {cuts}",
            )
