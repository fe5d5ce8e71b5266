"""The trunk `pretrained` against transformers itself, with small random models made here."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import transformers
from mtcore_networks.pretrained import Pretrained

import mtcore
from mtcore.plugin import ParameterError
from mtcore.testing import parametrize_checks

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (8, 8),
         "conv_kernel": (10, 5), "conv_stride": (5, 2), "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
"""Frames are 30 samples every 10."""


@parametrize_checks("networks")
def test_conformance(check):
    check()


def save(kind, folder, do_normalize=True, seed=0, **options):
    """With a classifier on top, which is not part of the trunk."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**SMALL, **options)
    getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=do_normalize).save_pretrained(folder)


@pytest.fixture(params=["Wav2Vec2", "Hubert", "WavLM"])
def folder(request, tmp_path):
    save(request.param, tmp_path)
    return tmp_path


@pytest.fixture
def wav2vec(tmp_path):
    save("Wav2Vec2", tmp_path)
    return tmp_path


def built(folder, **parameters):
    return Pretrained(path=str(folder), **parameters).build({"wave": (1, None)})


def noise(rows, samples, seed=0):
    return torch.from_numpy(0.1 * np.random.default_rng(seed).standard_normal((rows, 1, samples)).astype(np.float32))


@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("kind, options", [
    ("Wav2Vec2", {}), ("Wav2Vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}), ("Hubert", {}), ("WavLM", {})])
def test_equals_transformers(tmp_path, kind, options, do_normalize):
    save(kind, tmp_path, do_normalize, **options)
    x = noise(2, 200)
    vector, frames, stride, *_ = built(tmp_path).eval()({"wave": x}, None)
    front = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        ready = front([row.numpy() for row in x[:, 0]], sampling_rate=16000, return_tensors="pt")["input_values"]
        expected = model(torch.nn.functional.pad(ready, (10, 10))).last_hidden_state.transpose(1, 2)
    assert stride == 10 and frames.shape == (2, 16, 20)
    torch.testing.assert_close(frames, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(vector, torch.cat([frames.mean(2), frames.amax(2)], 1))


def test_padding_does_not_show(folder):
    module, lengths = built(folder).eval(), [200, 37, 1, 120, 37, 199]
    x = noise(6, 207)
    with torch.no_grad():
        vector, frames, stride, *_ = module({"wave": x}, {"wave": torch.tensor(lengths)})
        for row, length in enumerate(lengths):
            alone = module({"wave": x[row:row + 1, :, :length]}, None)
            own = math.ceil(length / stride)
            assert alone.frames.shape == (1, 16, own)
            torch.testing.assert_close(vector[row:row + 1], alone.vector, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(frames[row:row + 1, :, :own], alone.frames, rtol=1e-4, atol=1e-4)
            assert not frames[row, :, own:].any()


def test_all_weights_are_trained_and_nothing_is_drawn_by_numpy(folder):
    def gradients():
        torch.manual_seed(0)
        module = built(folder).train()
        vector, frames, *_ = module({"wave": noise(3, 300)}, {"wave": torch.tensor([300, 100, 300])})
        (vector.square().sum() + frames.square().sum()).backward()
        return {name: p.grad for name, p in module.named_parameters()}

    before = np.random.get_state()[1].copy()
    torch.use_deterministic_algorithms(True)
    first, second = gradients(), gradients()
    torch.use_deterministic_algorithms(False)
    assert [name for name, grad in first.items() if grad is None or not grad.any() and not name.endswith("k_proj.bias")] == []
    assert all(torch.equal(first[name], second[name]) for name in first) and np.array_equal(before, np.random.get_state()[1])


def test_missing_weights_are_not_made_up(wav2vec):
    from safetensors.torch import load_file, save_file

    state = load_file(wav2vec / "model.safetensors")
    gone = next(key for key in state if key.endswith("encoder.layers.1.attention.k_proj.weight"))
    save_file({key: tensor for key, tensor in state.items() if key != gone}, wav2vec / "model.safetensors", {"format": "pt"})
    with pytest.raises(ParameterError, match="found none for 1 of its tensors .*k_proj.weight.*would be random"):
        built(wav2vec)


def test_pickled_weights_are_not_read_and_code_is_not_run(wav2vec):
    config, ran = json.loads((wav2vec / "config.json").read_text()), wav2vec / "ran"
    code = f"open({str(ran)!r}, 'w').close()\nfrom transformers import Wav2Vec2Config as C, Wav2Vec2Model as M\n"
    (wav2vec / "code.py").write_text(code)
    config |= {"model_type": "something-of-their-own", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (wav2vec / "config.json").write_text(json.dumps(config))
    with pytest.raises(ParameterError, match="transformers cannot load it"):
        built(wav2vec)
    assert not ran.exists()
    save("Wav2Vec2", wav2vec)
    torch.save(transformers.AutoModel.from_pretrained(wav2vec).state_dict(), wav2vec / "pytorch_model.bin")
    (wav2vec / "model.safetensors").rename(wav2vec / "other.safetensors")
    with pytest.raises(ParameterError, match="transformers cannot load it"):
        built(wav2vec)


def test_it_is_trained_in_an_experiment_and_another_model_makes_another_run(wav2vec, tmp_path):
    def run():
        one, = mtcore.Experiment({
            "name": "tuned", "datasets": {"tones": {"reader": {"use": "core.tones", "count": 24}}},
            "inputs": {"main": {"extractor": "core.waveform", "steps": [{"use": "core.crop_or_pad", "length": 800}]}},
            "split": {"folds": 1, "validation": 0.2}, "model": {"trunk": {"use": "networks.pretrained", "path": str(wav2vec)}},
            "train": {"epochs": 1, "batch_size": 8}, "report": {"reporters": []}},
            tmp_path, tmp_path / "runs", tmp_path / "cache").run()
        return one.folder

    first, before = run(), built(wav2vec).state_dict()
    state = torch.load(first.checkpoint("last"), weights_only=True)["model"]
    key = "model.feature_extractor.conv_layers.0.conv.weight"
    assert first.info["status"] == "done" and not torch.equal(state[f"trunks.main.{key}"], before[key])
    save("Wav2Vec2", wav2vec, seed=1)
    assert run().path != first.path
