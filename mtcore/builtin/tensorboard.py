"""TensorBoard: scalars and loss curves per epoch, confusion pictures, and a run's place in the table of hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mtcore.plugin import Reporter, Reporting, param

from .metrics import confusion

__all__ = ["TensorBoard", "confusion_picture"]

FONTS = ("DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")
"""Looked for among the system's fonts, as Pillow's own has Latin letters only."""


@dataclass(frozen=True, kw_only=True)
class TensorBoard(Reporter):
    """Event files in `tensorboard/` of the run's folder; `tensorboard --logdir` on the experiment's folder shows all its runs."""

    pictures: int = param(10, help="confusion pictures of validation every so often; 0: of test only", unit="epochs", minimum=0)

    def build(self, folder: Path) -> Reporting:
        return Writing(Path(folder) / "tensorboard", self.pictures)


class Writing(Reporting):
    """The event file of one run. Tags are part/task/figure, steps are epochs."""

    def __init__(self, folder: Path, pictures: int):
        self.folder, self.pictures, self.final = folder, pictures, {}

    def run_started(self, run: Mapping[str, Any]) -> None:
        self.epoch, self.tasks = run.get("epoch", 0), list(run["tasks"])

    @cached_property
    def writer(self):
        from torch.utils.tensorboard import SummaryWriter  # late: takes a second, which the first epoch does not wait for

        # what a cut-off run wrote of an epoch it did not finish is shown no more
        writer = SummaryWriter(str(self.folder), purge_step=self.epoch + 1)
        writer.add_custom_scalars({"loss": {task: ["Multiline", [f"{part}/{task}/loss" for part in ("train", "validation")]]
                                            for task in self.tasks}})
        return writer

    def epoch_ended(self, epoch: int, figures: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        for part, tasks in figures.items():
            for task, values in tasks.items():
                for name, value in values.items():
                    self.writer.add_scalar(f"{part}/{task}/{name}", value, epoch)
        cosines = {(task, other): value for task, values in figures.get("train", {}).items() for name, value in values.items()
                   for kind, _, other in [name.partition("/")] if kind == "gradient_cosine"}
        if cosines:
            names = list(dict.fromkeys(task for pair in cosines for task in pair))
            self.writer.add_image("train/gradient_cosine", cosine_picture(cosines, names), epoch, dataformats="HWC")
        for part, tasks in predictions.items():
            for task, found in tasks.items():
                if found.task.kind in ("binary", "multiclass") and found.clips and self._due(part, epoch):
                    picture = confusion_picture(confusion(found), found.task.labels)
                    self.writer.add_image(f"{part}/{task}/confusion", picture, epoch, dataformats="HWC")
        self.final = figures.get("test", self.final)
        self.writer.flush()

    def _due(self, part: str, epoch: int) -> bool:
        return part == "test" or (part == "validation" and self.pictures > 0 and epoch % self.pictures == 0)

    def run_ended(self, run: Mapping[str, Any]) -> None:
        """A place in the table whose columns are the figures of all tasks of the experiment, as it is shown with those of one run."""
        from torch.utils.tensorboard.summary import hparams

        varied = {"fold": str(run["fold"]), "seed": str(run["seed"]), **run["variation"]}  # as numbers they would have decimals
        for summary in hparams(varied, {f"test/{task}/{metric}": 0.0 for task, metric in run["primary"].items()}):
            self.writer.file_writer.add_summary(summary)
        for task, metric in run["primary"].items():
            if metric in self.final.get(task, {}):
                self.writer.add_scalar(f"test/{task}/{metric}", self.final[task][metric], run.get("best_epoch"))
        self.writer.close()


def cosine_picture(cosines: Mapping[tuple[str, str], float], tasks: Sequence[str]) -> np.ndarray:
    """Cosines between tasks' gradients in hundredths, uint8 [height, width, 3]: the darker a cell, the farther from 0; red where gradients
    oppose each other."""
    values = np.array([[round(100 * cosines.get((one, other), 1.0 if one == other else 0.0)) for other in tasks] for one in tasks])
    return confusion_picture(values, tasks, caption="cosines of gradients, in hundredths; red: opposed", shares=values / 100)


def confusion_picture(counts: np.ndarray, labels: Sequence[str], size: int = 14, caption: str = "rows: true, columns: decided",
                      shares: np.ndarray | None = None) -> np.ndarray:
    """Draw counts [labels, labels] (rows true, columns decided) as uint8 [height, width, 3]: the darker a cell, the larger its
    share of the row. A label in letters that the font lacks goes by its number; beyond 60 labels there are neither names nor
    counts. `size`: height of letters in pixels. `shares`: of given ones, those below 0 are red, and every cell has its number."""
    from PIL import Image, ImageDraw  # late: as above

    written = counts != 0 if shares is None else np.ones_like(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if shares is None else shares
    colours = (255 - abs(shares)[..., None] * np.where(shares[..., None] < 0, [65, 210, 210], [225, 165, 90])).astype(np.uint8)
    if len(labels) > 60:
        cell = max(1, 1000 // len(labels))
        return colours.repeat(cell, axis=0).repeat(cell, axis=1)
    font = _font(size)
    lacking = bytes(font.getmask("\uffff"))
    names = [f"#{i}" if any(not letter.isprintable() or bytes(font.getmask(letter)) == lacking for letter in label) else
             label if len(label) <= 24 else f"{label[:23]}…" for i, label in enumerate(labels)]
    cell = int(max(2 * size, max(font.getlength(str(count)) for count in (counts.min(), counts.max())) + size))
    margin = int(max(map(font.getlength, names)) + 2 * size)
    side = cell * len(labels)
    width = max(margin + side + size, int(font.getlength(caption)) + 2 * size)
    picture = Image.new("RGB", (width, margin + side + 3 * size), "white")
    picture.paste(Image.fromarray(colours.repeat(cell, axis=0).repeat(cell, axis=1)), (margin, margin))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((margin - 1, margin - 1, margin + side, margin + side), outline="grey")
    for i, name in enumerate(names):
        middle = margin + i * cell + cell // 2
        draw.text((margin - size, middle), name, "black", font, anchor="rm")
        upright = Image.new("RGB", (margin - size, cell), "white")
        ImageDraw.Draw(upright).text((0, cell // 2), name, "black", font, anchor="lm")
        picture.paste(upright.rotate(90, expand=True), (margin + i * cell, 0))
        for j in np.flatnonzero(written[i]):
            ink = "white" if abs(shares[i, j]) > 0.5 else "black"
            draw.text((margin + j * cell + cell // 2, middle), str(counts[i, j]).replace("-", "−"), ink, font, anchor="mm")
    draw.text((size, margin + side + 2 * size), caption, "dimgrey", font, anchor="lm")
    return np.asarray(picture)


def _font(size: int):
    from PIL import ImageFont

    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
