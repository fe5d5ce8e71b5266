"""A miniature of RAVDESS: true layout and file names, buzzing stand-ins for the voices."""

from __future__ import annotations

from pathlib import Path

EMOTIONS = {"speech": range(1, 9), "song": range(1, 7)}
STEREO = ("03-01-02-01-01-02-01", "03-02-01-01-01-01-24")
"""Two of the six recordings that came with two channels."""


def make(root: Path, actors: tuple[int, ...] = (1, 2, 18, 20, 24), seconds: float = 1.4, rate: int = 48000) -> None:
    """Write both archives for some actors below `root`: a quarter of their clips, none of actor 18 singing.

    16 bit. Pitch tells the actor, its movement the emotion, loudness the intensity.
    """
    import numpy as np
    import soundfile

    time = np.arange(round(seconds * rate)) / rate
    for channel, (code, folder) in {"speech": (1, "Audio_Speech_Actors_01-24"), "song": (2, "Audio_Song_Actors_01-24")}.items():
        for actor in actors:
            if channel == "song" and actor == 18:
                continue
            place = Path(root) / folder / f"Actor_{actor:02}"
            place.mkdir(parents=True, exist_ok=True)
            for emotion, intensity in [(e, i) for e in EMOTIONS[channel] for i in ((1, 2) if e > 1 else (1,))]:
                statement = 1 + (emotion + intensity + actor) % 2
                name = f"03-{code:02}-{emotion:02}-{intensity:02}-{statement:02}-{1 + actor % 2:02}-{actor:02}"
                phase = 2 * np.pi * ((120 if actor % 2 else 210) + 2 * actor) * time + emotion * np.sin(2 * np.pi * emotion * time)
                voice = 0.2 * intensity * sum(np.sin(k * phase) / k for k in range(1, 5))
                voice += 0.01 * np.random.default_rng([code, emotion, intensity, actor]).standard_normal(len(time))
                soundfile.write(place / f"{name}.wav", np.stack([voice] * 2, 1) if name in STEREO else voice, rate, subtype="PCM_16")
