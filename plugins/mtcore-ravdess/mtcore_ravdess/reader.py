"""RAVDESS: 24 actors speak and sing two sentences in eight emotions. All annotation lies in the file names.

A name is seven two-digit codes: modality, vocal channel, emotion, intensity, statement, repetition, actor. The channel is in
the name, so a name is unique over the speech and the song archive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mtcore.plugin import Clip, DataError, DatasetInfo, Download, File, ParameterError, Reader, Task, param, scan

__all__ = ["CHANNELS", "LABELS", "Speech", "Stress"]

CHANNELS = ("speech", "song")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
INTENSITIES = ("normal", "strong")
STATEMENTS = ("kids", "dogs")
"""“Kids are talking by the door”, “Dogs are sitting by the door”."""
GENDERS = ("female", "male")
ACTORS = tuple(f"actor{number:02}" for number in range(1, 25))
LABELS = {"emotion": EMOTIONS, "intensity": INTENSITIES, "statement": STATEMENTS, "gender": GENDERS, "actor": ACTORS}
"""Labels by task, in the order of the codes in the file names."""

INFO = DatasetInfo(
    title="RAVDESS: The Ryerson Audio-Visual Database of Emotional Speech and Song, audio-only part",
    licence="CC BY-NC-SA 4.0",
    homepage="https://zenodo.org/record/1188976",
    downloads=(
        Download("https://zenodo.org/record/1188976/files/Audio_Speech_Actors_01-24.zip", size=208_468_073,
                 digest="sha256:5d208e01632cc3e5242106fa2af3273e6dc5239fb8143131979ac74c4aa40657"),
        Download("https://zenodo.org/record/1188976/files/Audio_Song_Actors_01-24.zip", size=225_505_317,
                 digest="sha256:89f3df66cc67ebb70c8af6f72f3f359bee497f6f763a9d863b6477619716d428"),
    ),
    layout="Actor_01/ … Actor_24/ with 03-01-06-01-02-01-12.wav and so on inside, directly below the root or in folders\n"
           "such as Audio_Speech_Actors_01-24/ and Audio_Song_Actors_01-24/ (there is no Actor_18 in song)",
    citation="S. R. Livingstone, F. A. Russo (2018), PLoS ONE 13(5): e0196391",
)

_NAME = re.compile("03-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1[0-9]|2[0-4])")


class Recording(NamedTuple):
    path: Path
    channel: str
    emotion: str
    intensity: str
    statement: str
    actor: str

    @property
    def gender(self) -> str:
        return GENDERS[int(self.actor[-2:]) % 2]

    @property
    def groups(self) -> dict[str, str]:
        return {"actor": f"ravdess:{self.actor}", "statement": f"ravdess:{self.statement}"}


def recordings(root: Path, channel: str, emotions: tuple[str, ...] = EMOTIONS) -> list[Recording]:
    """The audio-only recordings of one channel (or "both"), each name once: re-uploads hold the whole tree twice."""
    paths: dict[str, Path] = {}
    for path in sorted(scan(root, "**/Actor_*/03-*.wav"), key=lambda path: (len(path.parts), path)):
        paths.setdefault(path.stem, path)
    found = [recording for _, recording in sorted((name, _parsed(path)) for name, path in paths.items())
             if channel in ("both", recording.channel) and recording.emotion in emotions]
    if not found:
        raise DataError(f"{root}: expected {channel} recordings of {', '.join(emotions)}, found {len(paths)} others; unpack the archive "
                        "with them there, or choose another `channel`")
    return found


def _parsed(path: Path) -> Recording:
    match = _NAME.fullmatch(path.stem)
    if not match:
        raise DataError(f"{path}: expected a name of seven codes such as 03-01-06-01-02-01-12.wav; move the file out of the dataset")
    codes = [int(code) - 1 for code in match.groups()]
    return Recording(path, CHANNELS[codes[0]], EMOTIONS[codes[1]], INTENSITIES[codes[2]], STATEMENTS[codes[3]], ACTORS[codes[5]])


def left_out(channel: str, emotions: tuple[str, ...] = EMOTIONS) -> tuple[str, ...]:
    """Patterns of what `recordings` does not give: other modalities (their sound is the audio-only files'), channels, emotions."""
    channels = [f"*/03-{code:02}-*" for code, name in enumerate(CHANNELS, 1) if channel not in ("both", name)]
    return ("*/01-*", "*/02-*", *channels, *(f"*/03-??-{code:02}-*" for code, name in enumerate(EMOTIONS, 1) if name not in emotions))


@dataclass(frozen=True, kw_only=True)
class Speech(Reader):
    """Acted emotions: what is felt, how strongly, what is said, by whom."""

    info = INFO
    default_group = "actor"
    channel: str = param("speech", choices=(*CHANNELS, "both"), help="vocal channel; song has neither disgust nor surprised")

    @property
    def ignored(self):
        return left_out(self.channel)

    def tasks(self, root):
        return [Task.multiclass(name, labels) for name, labels in LABELS.items()]

    def clips(self, root):
        for one in recordings(root, self.channel):
            yield Clip(one.path.stem, File(one.path), groups=one.groups, targets={name: getattr(one, name) for name in LABELS})


@dataclass(frozen=True, kw_only=True)
class Stress(Reader):
    """Stressed voices against calm ones: the beginning of the clips of some emotions against that of others."""

    info = INFO
    default_group = "actor"
    channel: str = param("both", choices=(*CHANNELS, "both"), help="vocal channel")
    seconds: float = param(1.28, unit="s", minimum=0, help="how much of each clip's beginning is used; 0: all")
    positive: list[str] = param(["fearful"], choices=EMOTIONS, help="emotions that count as stress")
    negative: list[str] = param(["neutral"], choices=EMOTIONS, help="emotions that count as none; all others are left out")

    def __post_init__(self):
        if not self.positive or not self.negative or set(self.positive) & set(self.negative):
            raise ParameterError(f"positive and negative need at least one emotion each and none in common; found {self.positive} and "
                                 f"{self.negative}")

    @property
    def ignored(self):
        return left_out(self.channel, (*self.positive, *self.negative))

    def tasks(self, root):
        return [Task.binary("stress")]

    def clips(self, root):
        for one in recordings(root, self.channel, (*self.positive, *self.negative)):
            yield Clip(one.path.stem, File(one.path, stop=self.seconds or None), groups=one.groups,
                       targets={"stress": "yes" if one.emotion in self.positive else "no"})
