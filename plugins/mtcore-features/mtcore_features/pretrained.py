"""Networks that others have trained, from files that lie here already. Nothing is fetched, no code in the files is run."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from mtcore.plugin import Axis, ClipError, Extractor, ParameterError, param

from .extras import extra
from .framing import check_length, known

AST = "audio-spectrogram-transformer"
AST_FRAME, AST_HOP = 0.025, 0.01  # s, of its filter bank; its files do not say
LOADING = Lock()  # transformers changes torch's defaults while it makes a model


@dataclass(frozen=True, kw_only=True)
class Pretrained(Extractor):
    """A network in files. Their digest is one of the parameters that the features' key holds, so another network under the same
    path is another extractor."""

    path: str = param(help="where the network lies; ~ and $VARIABLES work, a relative path is one from the working folder")
    digest: str | None = param(None, help="what the digest of the network's files must be; default: what it is")

    def __post_init__(self):
        found = self.parameters()["digest"]
        if self.digest not in (None, found):
            raise ParameterError(f"{self.place}: expected files with the digest {self.digest}, found {found}; the network is not "
                                 "the one that was meant: give the path of that one, or leave digest out")

    def parameters(self) -> dict[str, Any]:
        known_by = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in self.files())
        return {**super().parameters(), "digest": digest_of(known_by)}

    @property
    def place(self) -> Path:
        return Path(os.path.expandvars(self.path)).expanduser()

    @abstractmethod
    def files(self) -> list[Path]:
        """All files that the result depends on; `ParameterError` where one is missing."""


def wrong_rate(place: Path, expected: int | None, found: float) -> ParameterError:
    return ParameterError(f"{place}: expected sound at {expected} Hz, which the network was trained with, found {found:g} Hz; "
                          f'put {{use = "resample", rate = {expected}}} among the signal steps')


@lru_cache(maxsize=64)
def digest_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of names and contents; size and time of change are there so that a changed file is read again."""
    whole = blake2b(digest_size=12)
    for file, *_ in files:
        with file.open("rb") as handle:
            whole.update(f"{file.name} {file_digest(handle, blake2b).hexdigest()}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Transformers(Pretrained):
    """Hidden states of a `transformers` model in a folder, as its `save_pretrained` and that of its feature extractor wrote it:
    [channels, values], or [channels, values, frames] with pool = "none".

    Models of raw sound (wav2vec 2.0, HuBERT, WavLM and others with `conv_stride` in config.json) and audio spectrogram
    transformers. Needs `pip install "mtcore-features[transformers]"`.
    """

    path: str = param(help="folder with config.json, preprocessor_config.json and model.safetensors; ~ and $VARIABLES work, a "
                      "relative path is one from the working folder")
    layer: int = param(-1, help="which hidden state: 0 is the input of the first layer, 1 its output, -1 that of the last")
    pool: str = param("mean", choices=("mean", "first", "none"), help="over time: the mean, the first position (the class token "
                      "of an audio spectrogram transformer), or all frames (models of raw sound)")

    def __post_init__(self):
        super().__post_init__()
        config = self._read("config.json")
        if "conv_stride" not in config and config.get("model_type") != AST:
            raise ParameterError(f"{self.place}: expected a model of raw sound (conv_stride in config.json) or an {AST}, found "
                                 f"model_type {config.get('model_type')!r}")
        if self.pool == "none" and "conv_stride" not in config:
            raise ParameterError(f"{self.place}: an {AST} has patches, not frames; expected pool mean or first, found none")
        layers = config.get("num_hidden_layers", 12)
        if not -layers - 1 <= self.layer <= layers:
            raise ParameterError(f"{self.place}: expected layer from {-layers - 1} to {layers}, found {self.layer}")

    def files(self) -> list[Path]:
        files = sorted([*self.place.glob("*.json"), *self.place.glob("*.safetensors")])
        for name in ("config.json", "preprocessor_config.json", "*.safetensors"):
            if not any(file.match(name) for file in files):
                raise ParameterError(f"{self.place}: expected a folder with config.json, preprocessor_config.json and weights as "
                                     f"safetensors, found {'no ' + name if self.place.is_dir() else 'no such folder'}")
        return files

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.place / name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ParameterError(f"{self.place / name}: expected JSON: {error}") from None

    def _frames(self) -> tuple[int, int] | None:
        """Length and hop in samples of the frames of a model of raw sound."""
        config = self._read("config.json")
        if "conv_stride" not in config:
            return None
        length = hop = 1
        for kernel, stride in zip(config["conv_kernel"], config["conv_stride"]):
            length, hop = length + (kernel - 1) * hop, hop * stride
        return length, hop

    def axis(self, rate: float | None) -> Axis | None:
        if self.pool != "none":
            return None
        length, hop = self._frames()
        return Axis(hop / known(rate), (length - 1) / 2 / rate)

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        rate, settings = known(rate), self._read("preprocessor_config.json")
        if settings.get("sampling_rate") != rate:
            raise wrong_rate(self.place, settings.get("sampling_rate"), rate)
        frames = self._frames()
        least, most = (frames[0], None) if frames else (int(AST_FRAME * rate), settings.get("max_length"))
        most = most and int(AST_FRAME * rate) + int(AST_HOP * rate) * most - 1
        front, model = loaded(self.place, self.parameters()["digest"])
        from torch import inference_mode  # seconds to import

        def one(channel: np.ndarray) -> np.ndarray:
            inputs = front(channel, sampling_rate=int(rate), return_tensors="pt")
            states = model(**inputs, output_hidden_states=True).hidden_states[self.layer][0]
            return {"mean": lambda: states.mean(0), "first": lambda: states[0], "none": lambda: states.T}[self.pool]().numpy()

        def embed(x: np.ndarray) -> np.ndarray:
            check_length(x, least, rate, "the model", "")
            if most and x.shape[-1] > most:
                raise ClipError(f"too long for the model, which would drop the rest: expected at most {most} samples "
                                f"({most / rate:g} s at {rate:g} Hz), found {x.shape[-1]}; put cut among the signal steps")
            with inference_mode():
                return np.stack([one(channel) for channel in x])

        return embed


@lru_cache(maxsize=2)
def _load(folder: Path, digest: str) -> tuple[Any, Any]:
    library = extra("transformers")
    logs, kept = library.utils.logging, library.utils.logging.get_verbosity()
    logs.set_verbosity_error()  # else a table of the weights that are not used, such as those of a classifier
    logs.disable_progress_bar()
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        front = library.AutoFeatureExtractor.from_pretrained(folder, **local)
        model, info = library.AutoModel.from_pretrained(folder, **local, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ParameterError(f"{folder}: transformers cannot load it: {type(error).__name__}: {error}") from error
    finally:
        logs.set_verbosity(kept)
    missing = sorted(key for key in info["missing_keys"] if key != "masked_spec_embed")  # that one is for training only
    if missing:
        raise ParameterError(f"{folder}: expected weights for all of the model, found none for {len(missing)} of its tensors "
                             f"(the first: {missing[0]}); they would be random")
    return front, model.eval()


def loaded(folder: Path, digest: str) -> tuple[Any, Any]:
    """Feature extractor and model; the same for all who ask for the same folder and content."""
    with LOADING:
        return _load(folder, digest)


@dataclass(frozen=True, kw_only=True)
class Onnx(Pretrained):
    """An output of a network in an ONNX file, given sound of one channel, float32 [1, n]: [channels, values]. Of an output
    [1, frames, values] it is the mean over the frames.

    Needs `pip install "mtcore-features[onnxruntime]"`. Weights must lie in the file itself.
    """

    path: str = param(help="ONNX file; ~ and $VARIABLES work, a relative path is one from the working folder")
    rate: int = param(help="sampling rate that the network was trained with, which the file does not say", unit="Hz", minimum=1)
    output: str | None = param(None, help="name of the output; default: the only one")

    def files(self) -> list[Path]:
        if not self.place.is_file():
            found = "a folder" if self.place.is_dir() else "nothing there"
            raise ParameterError(f"{self.place}: expected an ONNX file, found {found}")
        return [self.place]

    def axis(self, rate: float | None) -> None:
        return None

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        if known(rate) != self.rate:
            raise wrong_rate(self.place, self.rate, rate)
        session = self._session()
        (source, outputs) = session.get_inputs(), [one.name for one in session.get_outputs()]
        if len(source) != 1 or source[0].type != "tensor(float)" or len(source[0].shape) != 2:
            raise ParameterError(f"{self.place}: expected one input of float32 [1, n], found "
                                 + ", ".join(f"{one.name} of {one.type} {one.shape}" for one in source))
        if self.output not in outputs and (self.output or len(outputs) > 1):
            raise ParameterError(f"{self.place}: expected output as one of {', '.join(outputs)}; found {self.output}")

        def one(channel: np.ndarray) -> np.ndarray:
            try:
                found, = session.run([self.output or outputs[0]], {source[0].name: channel[None]})
            except Exception as error:  # each of its kinds derives from Exception itself
                raise ClipError(f"the network does not take {len(channel)} samples: {error}") from error
            if found.ndim not in (2, 3) or len(found) != 1 or not found.size:
                raise ClipError(f"expected an output [1, values] or [1, frames, values] for {len(channel)} samples, found "
                                f"{found.shape}")
            return found[0] if found.ndim == 2 else found[0].mean(axis=0)

        return lambda x: np.stack([one(channel) for channel in x])

    def _session(self) -> Any:
        library = extra("onnxruntime")
        options = library.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # clips are spread over threads already
        options.log_severity_level = 4  # what fails is an error of ours
        # weights in other files would not be in the digest, so they are looked for where there can be none
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.place / "itself"))
        try:
            return library.InferenceSession(self.place.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ParameterError(f"{self.place}: onnxruntime cannot load it: {error}") from error
