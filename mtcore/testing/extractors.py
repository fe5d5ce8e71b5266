"""Rules for extractors."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from ..errors import ClipError
from ..plugin import Extractor
from ..plugin.building import build
from .calls import same
from .kit import CheckFailed, Subject, expect, rule
from .sounds import arrays_of, rate_of

__all__: list[str] = []


def _prepared(subject: Subject) -> Any:
    return subject.component.prepare(rate_of(subject))


def _results(subject: Subject) -> list[np.ndarray]:
    extract = _prepared(subject)
    return [np.copy(result) if isinstance(result := extract(array), np.ndarray) else result for array in arrays_of(subject)]


@rule("extractor")
def shape(subject: Subject) -> None:
    """[channels, bins, frames] or [channels, values]: as many channels as came, frames by the axis where there is one, and the
    same other sizes for every length."""
    rate = rate_of(subject)
    axis = subject.component.axis(rate)
    pairs = list(zip(arrays_of(subject), _results(subject)))
    for array, result in pairs:
        expect(isinstance(result, np.ndarray), f"expected a numpy array, found {type(result).__name__}")
        expect(result.size and result.ndim, f"of {array.shape} nothing is left: {result.shape}")
        expect(
            not rate or len(result) == len(array), f"of {array.shape}, expected {len(array)} channels first, found {result.shape}"
        )
        rest = result.shape[1:-1] if axis else result.shape[1:]
        first = pairs[0][1].shape[1:-1] if axis else pairs[0][1].shape[1:]
        expect(
            rest == first or not rate,
            f"of {pairs[0][0].shape} the result is {pairs[0][1].shape}, of {array.shape} it is "
            f"{result.shape}: only the frames may differ"
            + ("" if axis else ", and there is no axis"),
        )
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
    """Finite for sound, soft and loud, or a ClipError."""
    extract = _prepared(subject)
    for array in arrays_of(subject):
        for gain in (1e-4, 1, 1e3):
            try:
                result = extract((gain * array).astype(np.float32))
            except ClipError:
                continue
            expect(
                np.isfinite(result).all(),
                f"{np.count_nonzero(~np.isfinite(result))} of {result.size} values are not finite for "
                f"sound of a peak of {gain * np.abs(array).max():.2g}",
            )


@rule("extractor")
def deterministic(subject: Subject) -> None:
    """The same bytes for the same array: again, after other arrays, in memory that held another, and by another instance; and
    others for others."""
    arrays = arrays_of(subject)
    extract = _prepared(subject)
    first = np.copy(extract(arrays[0]))
    for array in arrays[1:]:
        extract(array)
    expect(same(first, extract(arrays[0])), "the same array gives another result after other arrays")
    others = [0.5 * arrays[0][..., ::-1], np.random.default_rng(0).standard_normal(arrays[0].shape) * arrays[0].std()]
    others = [np.ascontiguousarray(other, np.float32) for other in others]
    expect(
        any(not same(first, extract(other)) for other in others),
        "three arrays of one shape give the same result; if results are remembered, know them by the samples, not by the shape",
    )
    memory = arrays[0].copy()
    extract(memory)
    memory[...] = others[0]
    expect(
        same(np.copy(extract(others[0])), extract(memory)),
        "an array gives another result in the memory of one extracted before; if "
        "results are remembered, know them by the samples, not by the object",
    )
    other = build(subject.cls, subject.example.parameters, subject.name).prepare(rate_of(subject))
    expect(same(first, other(arrays[0])), "another instance with the same parameters gives another result")


@rule("extractor")
def survives_a_spawned_process(subject: Subject) -> None:
    """The component can be pickled and works the same after it."""
    copy = pickle.loads(pickle.dumps(subject.component))
    array = arrays_of(subject)[0]
    expect(
        same(np.copy(_prepared(subject)(array)), copy.prepare(rate_of(subject))(array)),
        "pickled and unpickled, it gives another result",
    )


@rule("extractor")
def silence(subject: Subject) -> None:
    """Silence gives finite values, or a ClipError."""
    try:
        result = _prepared(subject)(np.zeros_like(arrays_of(subject)[0]))
    except ClipError:
        return
    expect(
        np.isfinite(result).all(), f"{np.count_nonzero(~np.isfinite(result))} of {result.size} values of silence are not finite"
    )


@rule("extractor", applies=lambda subject: not subject.spec.example or rate_of(subject))
def too_short(subject: Subject) -> None:
    """One sample, or a few, give a result with something in it, or a ClipError."""
    extract = _prepared(subject)
    array = arrays_of(subject)[0]
    for samples in (1, 7, 100):
        try:
            result = extract(np.ascontiguousarray(array[..., :samples]))
        except ClipError:
            continue
        except Exception as error:
            raise CheckFailed(
                f"of {samples} samples, expected a result or a ClipError, found {type(error).__name__}: {error}"
            ) from error
        expect(
            result.size and np.isfinite(result).all(), f"of {samples} samples the result is {result.shape}, expected a ClipError"
        )


@rule("extractor")
def input_untouched(subject: Subject) -> None:
    """The array that comes in stays as it is."""
    extract = _prepared(subject)
    for array in arrays_of(subject):
        before = array.copy()
        extract(array)
        expect(same(before, array), "the array that was given has changed; work on a copy of it")


@rule("extractor", applies=lambda subject: subject.cls.module is not Extractor.module)
def module_equals(subject: Subject) -> None:
    """`module` gives on a batch what the callable gives on each array of it."""
    import torch

    array = arrays_of(subject)[0]
    batch = np.stack([array, array[..., ::-1], 0.5 * array]).astype(np.float32)
    extract = _prepared(subject)
    single = np.stack([np.copy(extract(np.ascontiguousarray(row))) for row in batch])
    with torch.no_grad():
        found = subject.component.module(rate_of(subject))(torch.from_numpy(batch)).numpy()
    expect(found.shape == single.shape, f"of a batch of 3, module gives {found.shape}, the callable {single.shape}")
    error = np.abs(found - single).max() / max(float(np.abs(single).max()), 1e-12)
    expect(error < 1e-4, f"module and callable differ by {error:.1e} of the largest value")


@rule("extractor", applies=lambda subject: rate_of(subject) and subject.component.axis(rate_of(subject)) is not None)
def time_axis(subject: Subject) -> str | None:
    """A click at t appears in the frames around t: their centroid, over several clicks, is off by less than half a hop."""
    rate, extract, arrays = rate_of(subject), _prepared(subject), arrays_of(subject)
    axis = subject.component.axis(rate)
    length = round(rate * max(2.0, 20 * axis.hop, 2 * arrays[0].shape[-1] / rate))
    quiet = (1e-3 * np.random.default_rng(0).standard_normal((*arrays[0].shape[:-1], length))).astype(np.float32)
    rest, errors = np.copy(extract(quiet)), []
    for share in np.linspace(0.3, 0.7, 9):
        sample = int(share * length)
        clicked = quiet.copy()
        clicked[..., sample] += 1
        change = np.abs(extract(clicked) - rest).reshape(-1, rest.shape[-1]).sum(axis=0)
        if change.any():
            found = axis.first + axis.hop * (change @ np.arange(len(change))) / change.sum()
            errors.append(found - sample / rate)
    if not errors:
        return "no click changes any frame, so that nothing is known of the times"
    error = float(np.mean(errors))
    expect(
        abs(error) < axis.hop / 2,
        f"clicks appear {abs(error) * 1000:.1f} ms too {'late' if error > 0 else 'early'}; a hop is "
        f"{axis.hop * 1000:.1f} ms, and axis() says that the first frame's centre is at "
        f"{axis.first * 1000:.1f} ms",
    )
    return None
