"""A reader that keeps every rule."""

import os
import random
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from mtcore.plugin import Clip, DataError, DatasetInfo, Event, File, Lazy, Reader, Task, param, table
from mtcore.testing import write_tone

def load(path):
    return np.ones((1, 800), np.float32), 8000.0

def make(root):
    lines = ["file\tspecies\tsite"]
    for number in range(6):
        write_tone(root / f"r{number}.wav", 300 + 50 * number)
        lines.append(f"r{number}.wav\t{('owl', 'wren', 'robin')[number % 3]}\ts{number // 2}")
    (root / "meta.tsv").write_text("\n".join(lines))
    (root / "notes.txt").write_text("notes")

@dataclass(frozen=True, kw_only=True)
class Calls(Reader):
    info = DatasetInfo(title="Calls")
    default_group = "site"
    ignored = ("meta.tsv", "*.txt")
    least: int = param(0, help="nothing", minimum=0)

    def tasks(self, root):
        labels = sorted({row["species"] for row in table(root / "meta.tsv")})
        return [Task.multiclass("species", labels), Task.events("call", ["call"])]

    def clips(self, root):
        for number, row in enumerate(table(root / "meta.tsv")):
            path = root / row["file"]
            yield Clip(path.stem, File(path, 0.0, 0.5), {"species": row["species"], "call": [Event(0.1, 0.4, "call")]},
                       {"site": f"birds:{row['site']}"}, {"fold1": "test" if number // 2 == 0 else "train"})
        yield Clip("lazy", Lazy(load, (str(root / "meta.tsv"),), key="ones"), {"species": "owl"}, {"site": "birds:lazy"})
