"""What the extractor `core.run` is tried on: a run."""

from __future__ import annotations

from pathlib import Path

from ..plugin import Example

__all__ = ["example"]


def example(root: Path) -> Example:
    """A run of one epoch over a few generated tones, and two of them."""
    from ..experiment.plan import Experiment
    from ..reading.decode import decode

    content = {"name": "example", "datasets": {"tones": {"reader": {"use": "core.tones", "count": 24}}}, "train": {"epochs": 1},
               "inputs": {"main": {"extractor": {"use": "core.spectrogram", "hop": 0.032}}}, "report": {"reporters": []},
               "split": {"folds": 1, "test": 0.3}, "model": {"trunk": {"use": "core.cnn", "channels": [4], "stride": 1}}}
    experiment = Experiment(content, root, root / "runs", root / "cache")
    [run] = experiment.run()
    sounds = [decode(clip.audio) for clip in experiment.corpus.datasets[0].clips[:3:2]]
    return Example(parameters={"run": str(run.folder.path)}, others={"what": "frames", "dataset": "tones"},
                   arrays=tuple(sound for sound, _ in sounds), rate=sounds[0][1])
