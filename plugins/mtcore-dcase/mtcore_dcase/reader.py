"""TUT Acoustic Scenes 2017 (DCASE 2017 task 1): ten-second segments out of recordings of a few minutes, each from another place.

Development segments are called `<recording>_<from>_<to>.wav`; evaluation segments are numbered, and map.txt tells their names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mtcore.plugin import Clip, DataError, DatasetInfo, Download, File, Reader, Task, param, table

__all__ = ["FOLDS", "SCENES", "Scenes2017"]

SCENES = ("beach", "bus", "cafe/restaurant", "car", "city_center", "forest_path", "grocery_store", "home", "library", "metro_station",
          "office", "park", "residential_area", "train", "tram")
FOLDS = (1, 2, 3, 4)
FOLDER = "TUT-acoustic-scenes-2017-"


def _downloads(record: int, subset: str, parts: Mapping[str, tuple[int, str]]) -> Iterator[Download]:
    for part, (size, md5) in parts.items():
        yield Download(f"https://zenodo.org/record/{record}/files/{FOLDER}{subset}.{part}.zip", f"md5:{md5}", size)


INFO = DatasetInfo(
    title="TUT Acoustic Scenes 2017, development and evaluation datasets",
    licence="free for non-commercial use (EULA.pdf in doc.zip)",
    homepage="https://zenodo.org/record/400515 (development), https://zenodo.org/record/1040168 (evaluation)",
    downloads=(
        *_downloads(400515, "development", {
            "doc": (54_796, "2065495aaf3f1103e795c9899e2af1df"),
            "meta": (104_321, "9007fd4772d816590c5db5f5e9568f5d"),
            "error": (1_432, "802c700b021769e52a2c1e3b9c117a1b"),
            "audio.1": (1_071_445_248, "251325a9afaaad0326ad1c57f57d514a"),
            "audio.2": (1_073_453_613, "c26861e05147dc319b4250eb103d9d99"),
            "audio.3": (1_073_077_819, "a4815775f8a5e629179726ee4cd4f55a"),
            "audio.4": (1_072_822_038, "1732b03afe8c53ef8bba80ba14766e57"),
            "audio.5": (1_072_644_652, "611be754a0c951185c6ae4b7643c19a0"),
            "audio.6": (1_072_667_888, "165a201db800d3ea76fce5a9c2bd97d7"),
            "audio.7": (1_073_417_661, "c7d79db84264401c0f8680dcc36013ad"),
            "audio.8": (1_072_381_222, "35043f25123439392338c790494c7a19"),
            "audio.9": (1_072_087_738, "0805dcf5d8e6871dc9610182b2efb93a"),
            "audio.10": (1_046_262_120, "5df83a191295a04e290b125c634e13e7")}),
        *_downloads(1040168, "evaluation", {
            "doc": (53_687, "53709a07416ea3b617c02fcf67dbeb9c"),
            "meta": (4_473, "200eee9493e8044403e1326e3d05cfde"),
            "audio.1": (1_071_856_687, "3d6dda4445871e9544e0fefe7d14c7d9"),
            "audio.2": (1_073_362_972, "4085ef5fa286f2169074993a4e405953"),
            "audio.3": (1_071_521_152, "cac432579e7cf2dff0aec7aaed248956"),
            "audio.4": (382_756_463, "664bf09c3d24bd26c6b587f1d709de36")})),
    layout="TUT-acoustic-scenes-2017-development/ with audio/, meta.txt, error.txt and evaluation_setup/fold1_train.txt …, and\n"
           "TUT-acoustic-scenes-2017-evaluation/ with audio/ and evaluation_setup/evaluate.txt, map.txt; or one of them as the root",
    citation="A. Mesaros, T. Heittola, T. Virtanen (2016), TUT database for acoustic scene classification and sound event detection, EUSIPCO",
)


def folder(root: Path, subset: str, alone: bool) -> Path | None:
    """Where a subset lies: a folder of its name below the root, or the root itself. None where the root is the other subset and this
    one was not asked for by itself (`alone`)."""
    below = Path(root) / f"{FOLDER}{subset}"
    if below.is_dir():
        return below
    marks = {"development": "evaluation_setup/fold1_train.txt", "evaluation": "evaluation_setup/evaluate.txt"}
    mine = Path(root) / marks.pop(subset)
    if mine.is_file():
        return Path(root)
    if not alone and (Path(root) / marks.popitem()[1]).is_file():
        return None
    raise DataError(f"{root}: expected the folder {below.name}, or {mine.relative_to(root)} of it, found neither; unpack its archives there, or "
                    "choose the other `subset`")


def segments(path: Path) -> list[dict[str, str]]:
    """Rows of a list of files: no header, one to three columns, of which some copies lack the last."""
    return list(table(path, columns=("file", "scene", "recording"), delimiter="\t"))


def folds(place: Path) -> Mapping[str, dict[str, str]]:
    """The official folds: by file, its part by fold. Six files are tested in two folds."""
    parts: dict[str, dict[str, str]] = defaultdict(dict)
    for fold in FOLDS:
        for part in ("train", "test"):
            for row in segments(place / "evaluation_setup" / f"fold{fold}_{part}.txt"):
                parts[row["file"]][f"fold{fold}"] = part
    return parts


def origins(place: Path) -> dict[str, str]:
    """Original name of each numbered segment, both without folder. Copies and tools disagree about which column is which."""
    pairs = [[Path(cell).name for cell in row.values()] for row in segments(place / "evaluation_setup" / "map.txt")]
    return {name: other for pair in pairs for name, other in (pair, pair[::-1])}


def faulty(place: Path) -> set[str]:
    """Files with a moment of microphone failure or radio interference, wherever in error.txt's rows their names stand."""
    return {cell for row in table(place / "error.txt", columns=("1", "2", "3", "4"), delimiter="\t") for cell in row.values()
            if cell.endswith(".wav")}


@dataclass(frozen=True, kw_only=True)
class Scenes2017(Reader):
    """Where somebody is, from what is heard: 15 scenes, binaural, 44.1 kHz, 24 bit.

    Evaluation clips are tested in every fold. Development clips have their parts in the official folds and no part that is given,
    so that folds can also be drawn anew.
    """

    info = INFO
    default_group = "recording"
    subset: str = param("both", choices=("both", "development", "evaluation"), help="which of the two published datasets")
    errors: str = param("keep", choices=("keep", "skip"), help="what becomes of development clips with recording errors")

    @property
    def ignored(self):
        others = [f"{FOLDER}{name}/*/*" for name in ("development", "evaluation") if self.subset not in ("both", name)]
        return ("*.txt", "*.md", "*.html", "*.pdf", *others)

    def tasks(self, root):
        return [Task.multiclass("scene", SCENES)]

    def clips(self, root):
        for subset in ("development", "evaluation") if self.subset == "both" else (self.subset,):
            if place := folder(root, subset, self.subset == subset):
                yield from getattr(self, f"_{subset}")(place)

    def _development(self, place):
        parts, skipped = folds(place), faulty(place) if self.errors == "skip" else ()
        for row in segments(place / "meta.txt"):
            if row["file"] not in skipped:
                yield segment(place, row, row["file"], parts[row["file"]])

    def _evaluation(self, place):
        names = origins(place)
        for row in segments(place / "evaluation_setup" / "evaluate.txt"):
            yield segment(place, row, names.get(Path(row["file"]).name), {"given": "test"})


def segment(place: Path, row: Mapping[str, str], name: str | None, parts: Mapping[str, str]) -> Clip:
    """The clip of a row. Its recording is the original name's beginning; a numbered segment that no map names is of an unknown one."""
    recording = {"recording": f"tut2017:{Path(name).name.partition('_')[0]}"} if name else {}
    prefix = "evaluation" if "given" in parts else "development"
    return Clip(f"{prefix}/{Path(row['file']).stem}", File(place / row["file"]), {"scene": row["scene"]}, recording, parts)
