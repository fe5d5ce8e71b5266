"""What the conformance kit tries components on that cannot be built from defaults."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

from mtcore.plugin import Example

from .extras import extra

LOUDNESS = ("CAg6ewo5CgVzb3VuZBIIbG91ZG5lc3MiCFJlZHVjZUwyKgsKBGF4ZXNAAaABByoPCghrZWVwZGltcxgBoAECEghsb3VkbmVzc1oYCgVzb3VuZBIPCg0"
            "IARIJCgIIAQoDEgFuYhoKCGxvdWRuZXNzEg4KDAgBEggKAggBCgIIAUIECgAQDQ==")
"""An ONNX file of one node, ReduceL2: sound [1, n] to loudness [1, 1]."""


def resample(root: Path) -> Example:
    return Example(parameters={"rate": 12000})


def window(root: Path) -> Example:
    return Example(parameters={"length": 20}, others={"hop": 7})


def transformers(root: Path) -> Example:
    """A wav2vec 2.0 with random weights, a few kilobytes large."""
    library = extra("transformers")
    from torch import manual_seed, random  # comes with mtcore

    with random.fork_rng():
        manual_seed(0)
        config = library.Wav2Vec2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                                        conv_dim=(8, 8), conv_kernel=(10, 5), conv_stride=(5, 4), num_conv_pos_embeddings=8,
                                        num_conv_pos_embedding_groups=2)
        for number in (1, 2):
            library.Wav2Vec2Model(config).save_pretrained(root / str(number))
            library.Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(root / str(number))
    return Example(parameters={"path": str(root / "1")}, others={"path": str(root / "2")})


def onnx(root: Path) -> Example:
    root.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        (root / f"{number}.onnx").write_bytes(b64decode(LOUDNESS))
    return Example(parameters={"path": str(root / "1.onnx"), "rate": 16000},
                   others={"path": str(root / "2.onnx"), "output": "loudness"})
