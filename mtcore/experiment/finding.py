"""Which run that is done may be used: it must not have trained on what is validated or tested here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from ..clip import File, Lazy
from ..errors import ExperimentError, LeakError
from ..runfolder import RunFolder, atomic

__all__ = ["find_run", "finished", "save_trained", "stretch", "trained_on"]

Stretch = tuple[str, float, float]
"""Digest of a file, start and stop in seconds (infinite: its end)."""


def finished(folder: RunFolder) -> dict[str, Any]:
    """run.json. Raises `ExperimentError` where there is none, or the run is not done."""
    info = folder.info
    if not info:
        raise ExperimentError(f"{folder.path}: expected the folder of a run, found no run.json in it")
    if info["status"] != "done":
        raise ExperimentError(f"{folder.path}: expected a run that is done, found one that is {info['status']}; `mtcore run` finishes it")
    return info


def stretch(digest: str, audio: File | Lazy) -> Stretch:
    start, stop = (audio.start, audio.stop) if isinstance(audio, File) else (0.0, None)
    return digest, start, float("inf") if stop is None else stop


def save_trained(folder: RunFolder, trained: Iterable[Stretch]) -> None:
    """pipeline/trained.npz: digest uint8 [n, 16] and span float64 [n, 2] of all audio that a run has learned from, sorted."""
    if folder.silent:
        return
    rows = sorted(set(trained))
    digests = np.frombuffer(bytes.fromhex("".join(digest for digest, *_ in rows)), np.uint8).reshape(-1, 16)
    with atomic(folder.path / "pipeline" / "trained.npz") as aside, open(aside, "wb") as file:
        np.savez(file, digest=digests, span=np.array([span for _, *span in rows], np.float64).reshape(-1, 2))


def trained_on(folder: Path) -> list[Stretch]:
    """What `save_trained` saved."""
    path = Path(folder) / "pipeline" / "trained.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [(row.tobytes().hex(), *span) for row, span in zip(arrays["digest"], arrays["span"].tolist())]
    except (OSError, ValueError, KeyError) as error:
        raise ExperimentError(f"{path}: expected digests of what the run has trained on, found {type(error).__name__}: {error}; "
                              "run it again") from error


def _leaked(folder: Path, held: Mapping[str, Stretch]) -> list[str]:
    """Names of the clips that the run has trained on."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for digest, *span in trained_on(folder):
        spans.setdefault(digest, []).append(span)
    return [name for name, (digest, start, stop) in held.items() if any(a < stop and start < b for a, b in spans.get(digest, ()))]


def find_run(place: Path, fold: int, held: Mapping[str, Stretch], path: str) -> Path:
    """The one run at a place, or, below a folder of runs or at a pattern, of the same fold (from 0), that has not trained on what
    is `held` back by clip. Raises `ExperimentError` for none or several, `LeakError` where it has."""
    found = [place] if place.exists() else [Path(one) for one in sorted(glob(str(place)))]
    if not found:
        raise ExperimentError(f"{path}: expected a run's folder, a folder of runs or a pattern at {place}, found nothing there")
    runs = [one for one in found if (one / "run.json").exists()]
    runs = runs or sorted(file.parent for one in found for file in one.glob("*/run.json"))
    if runs != [place]:
        infos = {run: RunFolder(run).info for run in runs}
        runs = [run for run, info in infos.items() if info.get("fold") == fold + 1 and info.get("status") == "done"]
    leaks = {run: _leaked(run, held) for run in runs if finished(RunFolder(run))}
    allowed = [run for run, clips in leaks.items() if not clips]
    if len(allowed) == 1:
        return allowed[0]
    if len(runs) == 1:
        clips = leaks[runs[0]]
        raise LeakError(f"{path}: {runs[0]} has trained on {len(clips)} clips that are validated or tested here in fold {fold + 1}: "
                        f"{', '.join(clips[:5])}{', …' if len(clips) > 5 else ''}; take a run that has the same parts, or another split")
    names = ", ".join(run.name for run in allowed)
    told = f"{len(allowed)}: {names}; a pattern such as {place.name}/all-* names some" if allowed else "none"
    seen = "".join(f"\n  {run.name} has trained on {', '.join(clips[:3])}" for run, clips in leaks.items() if clips)
    raise ExperimentError(f"{path}: expected one run of fold {fold + 1} below {place} that is done and has trained on nothing that "
                          f"is validated or tested here, found {told}{seen}")
