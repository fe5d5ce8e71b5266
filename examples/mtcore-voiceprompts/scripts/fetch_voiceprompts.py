"""Fetch the recordings on Debian or Ubuntu and index them: python fetch_voiceprompts.py TARGET

Downloads eight packages with apt-get (nothing is installed, no root needed), unpacks them with dpkg, and writes TARGET/audio,
TARGET/licence and TARGET/index.csv. Needs soundfile.
"""

import csv
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import soundfile

PACKAGES = (*(f"asterisk-core-sounds-{language}-wav" for language in ("en", "es", "fr", "it", "ru")), "asterisk-prompt-it-menardi-wav",
            "asterisk-prompt-es-co", "asterisk-prompt-fr-armelle")
VOICES = {"es": "es_CO_f_Avatar", "fr": "fr_FR_f_Armelle"}
"""Folders that are not called <language>_<country>_<gender>_<name> already."""
COLUMNS = ("path", "start", "stop", "language", "voice", "speaker", "gender", "kind", "digit", "letter", "n_seconds", "group")
SHORTEST = 0.05
"""Seconds; shorter files are placeholders."""


def fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "--quiet", *PACKAGES], cwd=folder, check=True)
        for package in sorted(Path(folder).glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, "unpacked"], cwd=folder, check=True)
        unpacked = Path(folder) / "unpacked" / "usr" / "share"
        collect(unpacked / "asterisk" / "sounds", target / "audio")
        for package in PACKAGES:
            for source in (unpacked / "doc" / package).glob("copyright*"):
                (target / "licence").mkdir(exist_ok=True)
                shutil.copy(source, target / "licence" / f"{package}.{source.name}")


def collect(sounds: Path, audio: Path) -> None:
    """Copy the voices' folders; the headerless GSM 06.10 of two of them becomes WAV."""
    for voice in sorted(path for path in sounds.iterdir() if path.is_dir() and not path.is_symlink()):
        if voice.name not in VOICES and voice.name.count("_") < 3:
            continue
        for source in sorted(voice.rglob("*.wav")) + sorted(voice.rglob("*.gsm")):
            place = (audio / VOICES.get(voice.name, voice.name) / source.relative_to(voice)).with_suffix(".wav")
            if source.is_symlink() or "silence" in source.relative_to(voice).parts or source.stat().st_size < 1024 and source.suffix == ".wav":
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == ".wav":
                shutil.copy(source, place)
            else:
                sound, rate = soundfile.read(source, format="RAW", subtype="GSM610", samplerate=8000, channels=1, dtype="int16")
                soundfile.write(place, sound, rate, subtype="PCM_16")


def described(target: Path, path: Path) -> dict[str, str]:
    """A row of the index. The same phrase in all languages is one group."""
    parts = path.relative_to(target / "audio").parts
    language, _, gender, speaker = parts[0].split("_", 3)
    kind = parts[1] if parts[1] in ("digits", "letters", "phonetic") else "prompt"
    seconds = soundfile.info(path).duration
    return {"path": path.relative_to(target).as_posix(), "start": "0.000000", "stop": f"{seconds:.6f}", "language": language, "voice": parts[0],
            "speaker": speaker, "gender": gender, "kind": kind,
            "digit": path.stem if kind == "digits" and len(path.stem) == 1 and path.stem.isdecimal() else "",
            "letter": path.stem if kind == "letters" and len(path.stem) == 1 and path.stem.isalpha() else "",
            "n_seconds": f"{seconds:.3f}", "group": f"{kind}/{path.stem}"}


def index(target: Path) -> list[dict[str, str]]:
    """Write index.csv. Of equal recordings the first stays, or none where their labels contradict each other; their phrases become one
    group, for a recording must not lie on both sides of a split under two names."""
    twins = defaultdict(list)
    for path in sorted((target / "audio").rglob("*.wav")):
        row = described(target, path)
        if float(row["stop"]) >= SHORTEST and not path.stem.startswith("silence"):
            twins[hashlib.sha256(path.read_bytes()).digest()].append(row)
    same: dict[str, str] = {}

    def first(group: str) -> str:
        while group in same:
            group = same[group]
        return group

    kept = []
    for rows in twins.values():
        for row in rows[1:]:
            low, high = sorted((first(rows[0]["group"]), first(row["group"])))
            if low != high:
                same[high] = low
        if len({(row["language"], row["kind"], row["digit"], row["letter"]) for row in rows}) == 1:
            kept.append(rows[0])
    kept = [{**row, "group": first(row["group"])} for row in kept]
    with open(target / "index.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
    return kept


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    place = Path(sys.argv[1]).resolve()
    place.mkdir(parents=True, exist_ok=True)
    fetch(place)
    print(f"{len(index(place))} recordings in {place / 'index.csv'}")
