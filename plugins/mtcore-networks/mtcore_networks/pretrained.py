"""A network that others have trained, from files that lie here already. Nothing is fetched, no code in the files is run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtcore.plugin import ParameterError, PluginError, Representation, Trunk, param

from .parts import Overall, Shapes, shorter

FILES = ("config.json", "preprocessor_config.json", "*.safetensors")


@dataclass(frozen=True, kw_only=True)
class Pretrained(Trunk):
    """A `transformers` model of raw sound (wav2vec 2.0, HuBERT, WavLM and others with `conv_stride` in config.json), all of whose
    weights are trained on. Needs `pip install "mtcore-networks[transformers]"`.

    It takes waveforms [1, samples] at the rate that the model was trained with (`sampling_rate` in preprocessor_config.json),
    which a trunk cannot see. A frame of the representation is the last hidden state, the vector the frames' mean and maximum over
    time. Zeros in front and behind make a frame for every `stride` samples, rounded up, with its middle in theirs. Rows of one
    length go through the model together, other lengths after each other: its normalisations would see padding. Masking of the
    input and dropping of layers, which such models do in training, are off: numpy's global generator would draw the masks.
    """

    path: str = param(help="folder with config.json, preprocessor_config.json and weights as safetensors; ~ and $VARIABLES work, "
                      "a relative path is one from the working folder")
    digest: str | None = param(None, help="what the digest of the folder's files must be; default: what it is")
    dropout: float = param(0.0, minimum=0, maximum=1, help="share of the vector's values dropped; the model has its own inside")

    def __post_init__(self):
        if "conv_stride" not in self._read("config.json"):
            raise ParameterError(f"{self.place}: expected a model of raw sound, with conv_stride in config.json; found "
                                 f"model_type {self._read('config.json').get('model_type')!r}")
        found = self.parameters()["digest"]
        if self.digest not in (None, found):
            raise ParameterError(f"{self.place}: expected files with the digest {self.digest}, found {found}; the network is not "
                                 "the one that was meant: give the path of that one, or leave digest out")

    @property
    def place(self) -> Path:
        return Path(os.path.expandvars(self.path)).expanduser()

    def parameters(self) -> dict[str, Any]:
        """With the digest of the files, so that another model in the same folder makes another run."""
        return {**super().parameters(), "digest": digest_of(tuple((one, one.stat().st_size, one.stat().st_mtime_ns)
                                                                  for one in self.files()))}

    def files(self) -> list[Path]:
        """All that the model depends on; `ParameterError` where one is missing."""
        files = sorted([*self.place.glob("*.json"), *self.place.glob("*.safetensors")])
        for name in FILES:
            if not any(file.match(name) for file in files):
                raise ParameterError(f"{self.place}: expected a folder with {', '.join(FILES)}, found "
                                     f"{'no ' + name if self.place.is_dir() else 'no such folder'}")
        return files

    def _read(self, name: str) -> dict[str, Any]:
        self.files()
        try:
            return json.loads((self.place / name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ParameterError(f"{self.place / name}: expected JSON: {error}") from None

    def build(self, shapes: Shapes) -> nn.Module:
        if len(shapes) != 1 or any(shape[:-1] != (1,) for shape in shapes.values()):
            raise ParameterError("pretrained takes one input of waveforms [1, samples], found "
                                 + ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
                                 + "; use the extractor waveform with mono among the signal steps, and name one input in "
                                 "`inputs`")
        config, length, hop = self._read("config.json"), 1, 1
        for kernel, stride in zip(config["conv_kernel"], config["conv_stride"]):
            length, hop = length + (kernel - 1) * hop, hop * stride
        normalise = self._read("preprocessor_config.json").get("do_normalize", True)  # transformers' own default
        return Waves(*shapes, load(self.place), length, hop, normalise, self.dropout)


@lru_cache(maxsize=64)
def digest_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of names and contents; size and time of change are there so that a changed file is read again."""
    whole = blake2b(digest_size=12)
    for file, *_ in files:
        with file.open("rb") as handle:
            whole.update(f"{file.name} {file_digest(handle, blake2b).hexdigest()}\n".encode())
    return whole.hexdigest()


def load(folder: Path) -> nn.Module:
    """The model, `ParameterError` if not all of its weights are there."""
    try:
        import transformers  # an extra, and seconds to import
    except ImportError as error:
        raise PluginError(f"expected the library transformers, found none that can be imported ({error}); "
                          'pip install "mtcore-networks[transformers]"') from error
    logs, kept = transformers.utils.logging, transformers.utils.logging.get_verbosity()
    logs.set_verbosity_error()  # else a table of the weights that are not used, such as those of a classifier
    logs.disable_progress_bar()
    try:
        model, info = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True,
            mask_time_prob=0.0, mask_feature_prob=0.0, layerdrop=0.0)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ParameterError(f"{folder}: transformers cannot load it: {type(error).__name__}: {error}") from error
    finally:
        logs.set_verbosity(kept)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ParameterError(f"{folder}: expected weights for all of the model, found none for {len(missing)} of its tensors "
                             f"(the first: {missing[0]}); they would be random")
    return model.requires_grad_()


class Waves(nn.Module):
    """`length` and `hop`: samples of the model's frames."""

    def __init__(self, name: str, model: nn.Module, length: int, hop: int, normalise: bool, dropout: float):
        super().__init__()
        self.name, self.model, self.length, self.hop, self.normalise = name, model, length, hop, normalise
        self.overall = Overall(hop, dropout)

    def forward(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> Representation:
        x = inputs[self.name].squeeze(1)
        if lengths is None:
            return self.overall(self.frames(x), None)
        length = lengths[self.name].clamp(min=1)
        total, rows, found = shorter(x.shape[1], self.hop), [], []
        for size in length.unique().tolist():
            rows.append((length == size).nonzero().flatten())
            frames = self.frames(x[rows[-1], :size])
            found.append(F.pad(frames, (0, total - frames.shape[-1])))
        order = torch.cat(rows).argsort()
        return self.overall(torch.cat(found)[order], shorter(length, self.hop))

    def frames(self, x: Tensor) -> Tensor:
        """Of rows without padding, [batch, samples] -> [batch, values, frames]."""
        if self.normalise:
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-7).sqrt()
        missing = (shorter(x.shape[1], self.hop) - 1) * self.hop + self.length - x.shape[1]
        front = min((self.length - self.hop) // 2, missing)
        return self.model(F.pad(x, (front, missing - front))).last_hidden_state.transpose(1, 2)
