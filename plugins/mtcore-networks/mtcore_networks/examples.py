"""What the conformance kit tries components on."""

from __future__ import annotations

from pathlib import Path

from mtcore.plugin import Example


def wav2vec2(root: Path) -> Example:
    """A small model of random weights, whose frames are 30 samples every 10."""
    import torch
    import transformers  # an extra

    config = transformers.Wav2Vec2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                                         conv_dim=(8, 8), conv_kernel=(10, 5), conv_stride=(5, 2), num_conv_pos_embeddings=8,
                                         num_conv_pos_embedding_groups=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.Wav2Vec2Model(config).save_pretrained(root)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(root)
    return Example(parameters={"path": str(root)})
