"""Rules for extractors, and the one on parameters that preparers share."""

from __future__ import annotations

import json
import pickle
from itertools import chain
from typing import Any, Iterator

import numpy as np

from ..errors import ClipError, MtcoreError
from ..plugin import Extractor, Named
from ..plugin.building import Parameter, build, parameters_of
from .kit import CheckFailed, NotReached, Subject, expect, rule
from .sounds import SECONDS, rate_of, sound

__all__: list[str] = []


def _arrays(subject: Subject) -> list[np.ndarray]:
    """Those of its example, or sound of one and of two channels in two lengths."""
    if subject.example.arrays:
        return [np.asarray(array, np.float32) for array in subject.example.arrays]
    rate = rate_of(subject)
    return [sound(0, SECONDS, rate), sound(1, 1.4 * SECONDS, rate), sound(2, SECONDS, rate, channels=2)]


def _prepared(subject: Subject) -> Any:
    return subject.component.prepare(rate_of(subject))


def _results(subject: Subject) -> list[np.ndarray]:
    extract = _prepared(subject)
    return [extract(array) for array in _arrays(subject)]


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@rule("extractor")
def shape(subject: Subject) -> None:
    """[channels, bins, frames] or [channels, values]: as many channels as came, frames by the axis where there is one, and the same
    other sizes for every length."""
    rate = rate_of(subject)
    axis = subject.component.axis(rate)
    pairs = list(zip(_arrays(subject), _results(subject)))
    for array, result in pairs:
        expect(isinstance(result, np.ndarray), f"expected a numpy array, found {type(result).__name__}")
        expect(result.size and result.ndim, f"of {array.shape} nothing is left: {result.shape}")
        expect(not rate or len(result) == len(array), f"of {array.shape}, expected {len(array)} channels first, found {result.shape}")
        rest = result.shape[1:-1] if axis else result.shape[1:]
        first = pairs[0][1].shape[1:-1] if axis else pairs[0][1].shape[1:]
        expect(rest == first or not rate, f"of {pairs[0][0].shape} the result is {pairs[0][1].shape}, of {array.shape} it is "
                                          f"{result.shape}: only the frames may differ" + ("" if axis else ", and there is no axis"))
        more = (array.shape[-1] - pairs[0][0].shape[-1]) / rate if rate else 0.0
        frames = result.shape[-1] - pairs[0][1].shape[-1]
        expect(not axis or abs(frames * axis.hop - more) <= 1.01 * axis.hop,
               f"{more:g} s more of sound give {frames} more frames, but a frame is said to be {axis.hop if axis else 0:g} s")


@rule("extractor")
def dtype(subject: Subject) -> None:
    """float32."""
    for result in _results(subject):
        found = getattr(result, "dtype", type(result).__name__)
        expect(found == np.float32, f"expected float32, found {found}")


@rule("extractor")
def finite(subject: Subject) -> None:
    """Finite for sound, soft and loud."""
    extract = _prepared(subject)
    for array in _arrays(subject):
        for gain in (1e-4, 1, 1e3):
            result = extract((gain * array).astype(np.float32))
            expect(np.isfinite(result).all(), f"{np.count_nonzero(~np.isfinite(result))} of {result.size} values are not finite for "
                                              f"sound of a peak of {gain * np.abs(array).max():.2g}")


@rule("extractor")
def deterministic(subject: Subject) -> None:
    """The same bytes for the same array: again, after other arrays, and by another instance."""
    arrays = _arrays(subject)
    extract = _prepared(subject)
    first = extract(arrays[0])
    for array in arrays[1:]:
        extract(array)
    expect(_same(first, extract(arrays[0])), "the same array gives another result after other arrays")
    other = build(subject.cls, subject.example.parameters, subject.name).prepare(rate_of(subject))
    expect(_same(first, other(arrays[0])), "another instance with the same parameters gives another result")


@rule("extractor")
def survives_a_spawned_process(subject: Subject) -> None:
    """The component can be pickled and works the same after it."""
    copy = pickle.loads(pickle.dumps(subject.component))
    array = _arrays(subject)[0]
    expect(_same(_prepared(subject)(array), copy.prepare(rate_of(subject))(array)), "it works otherwise after pickling")


@rule("extractor")
def silence(subject: Subject) -> None:
    """Silence gives finite values, or a ClipError."""
    try:
        result = _prepared(subject)(np.zeros_like(_arrays(subject)[0]))
    except ClipError:
        return
    expect(np.isfinite(result).all(), f"{np.count_nonzero(~np.isfinite(result))} of {result.size} values of silence are not finite")


@rule("extractor", applies=lambda subject: not subject.spec.example or rate_of(subject))
def too_short(subject: Subject) -> None:
    """One sample, or a few, give a result with something in it, or a ClipError."""
    extract = _prepared(subject)
    array = _arrays(subject)[0]
    for samples in (1, 7, 100):
        try:
            result = extract(np.ascontiguousarray(array[..., :samples]))
        except ClipError:
            continue
        except Exception as error:
            raise CheckFailed(f"of {samples} samples, expected a result or a ClipError, found {type(error).__name__}: {error}") from error
        expect(result.size and np.isfinite(result).all(), f"of {samples} samples the result is {result.shape}, expected a ClipError")


@rule("extractor")
def input_untouched(subject: Subject) -> None:
    """The array that comes in stays as it is, and the result is no view of it that could change it."""
    extract = _prepared(subject)
    for array in _arrays(subject):
        before = array.copy()
        array.setflags(write=True)
        extract(array)
        expect(_same(before, array), "the array that was given has changed")


@rule("extractor", applies=lambda subject: subject.cls.module is not Extractor.module)
def module_equals(subject: Subject) -> None:
    """`module` gives on a batch what the callable gives on each array of it."""
    import torch

    array = _arrays(subject)[0]
    batch = np.stack([array, array[..., ::-1], 0.5 * array]).astype(np.float32)
    extract = _prepared(subject)
    single = np.stack([extract(np.ascontiguousarray(row)) for row in batch])
    with torch.no_grad():
        found = subject.component.module(rate_of(subject))(torch.from_numpy(batch)).numpy()
    expect(found.shape == single.shape, f"of a batch of 3, module gives {found.shape}, the callable {single.shape}")
    error = np.abs(found - single).max() / max(float(np.abs(single).max()), 1e-12)
    expect(error < 1e-4, f"module and callable differ by {error:.1e} of the largest value")


@rule("extractor", applies=lambda subject: subject.component.axis(rate_of(subject)) is not None)
def time_axis(subject: Subject) -> None:
    """A click at t appears in the frames around t: their centroid, over several clicks, is off by less than half a hop."""
    rate = rate_of(subject)
    if not rate:
        return
    axis, extract = subject.component.axis(rate), _prepared(subject)
    length = round(2 * SECONDS * rate)
    quiet = (1e-3 * np.random.default_rng(0).standard_normal((1, length))).astype(np.float32)
    rest, errors = extract(quiet), []
    for share in np.linspace(0.3, 0.7, 9):
        sample = int(share * length)
        clicked = quiet.copy()
        clicked[0, sample] += 1
        change = np.abs(extract(clicked) - rest).reshape(-1, rest.shape[-1]).sum(axis=0)
        if not change.any():
            raise CheckFailed(f"a click at {sample / rate:g} s changes no frame")
        found = axis.first + axis.hop * (change @ np.arange(len(change))) / change.sum()
        errors.append(found - sample / rate)
    error = float(np.mean(errors))
    expect(abs(error) < axis.hop / 2, f"clicks appear {abs(error) * 1000:.1f} ms too {'late' if error > 0 else 'early'} (a hop is "
                                      f"{axis.hop * 1000:.1f} ms, the first frame's centre is said to be at {axis.first * 1000:.1f} ms)")


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
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    guesses = [subject.example.others[parameter.name]] if parameter.name in subject.example.others else []
    usual = [*(parameter.choices or ()), not value, *([value + 1, value - 1, value * 1.5, value / 2] if number else []),
             *([value[:-1], value[1:], value[::-1]] if isinstance(value, (list, tuple)) else []), 1, 2, 0.5, 100.0, "1s", "x", None]
    for guess in chain(guesses, usual):
        try:
            other = build(subject.cls, {**given, parameter.name: guess}, subject.name)
        except MtcoreError:
            continue
        if getattr(other, parameter.name) != value:
            yield other
