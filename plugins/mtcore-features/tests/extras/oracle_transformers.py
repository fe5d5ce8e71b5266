"""Embeddings against transformers itself, with small random models made here."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers
from mtcore_features.pretrained import Transformers

import mtcore
from mtcore.plugin import ClipError, ParameterError

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def raw(kind, folder, do_normalize=True, **options):
    """A model of raw sound with a classifier on top, which is not part of the embedding; frames of 30 samples every 10."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SMALL, conv_dim=(8, 8), conv_kernel=(10, 5), conv_stride=(5, 2),
                                                    num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, **options)
    getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=do_normalize).save_pretrained(folder)


def patches(folder):
    torch.manual_seed(0)
    config = transformers.ASTConfig(**SMALL, max_length=64, num_mel_bins=32)
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(folder)


@pytest.fixture(scope="module", params=("Wav2Vec2", "Hubert", "WavLM", "AST"))
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    patches(folder) if request.param == "AST" else raw(request.param, folder)
    return folder


@pytest.fixture
def wav2vec(tmp_path):
    raw("Wav2Vec2", tmp_path)
    return tmp_path


def noise(n=8000, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((2, n)).astype(np.float32)


def states(folder, channel, layer):
    front = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        inputs = front(channel, sampling_rate=16000, return_tensors="pt")
        return model(**inputs, output_hidden_states=True).hidden_states[layer][0].numpy()


@pytest.mark.parametrize("layer", (-1, 0, 2))
def test_equals_transformers(folder, layer):
    x = noise()
    expected = np.stack([states(folder, channel, layer) for channel in x])
    for pool, pooled in (("mean", expected.mean(axis=1)), ("first", expected[:, 0])):
        found = Transformers(path=str(folder), layer=layer, pool=pool).prepare(16000)(x)
        assert found.dtype == np.float32 and found.shape == (2, 16) and np.allclose(found, pooled, atol=1e-5)
    if not folder.name.startswith("AST"):
        found = Transformers(path=str(folder), layer=layer, pool="none").prepare(16000)(x)
        assert np.allclose(found, expected.transpose(0, 2, 1), atol=1e-5) and found.shape[-1] == 1 + (8000 - 30) // 10


def test_layers_and_silence(folder):
    x = noise()
    found = [Transformers(path=str(folder), layer=layer).prepare(16000)(x) for layer in range(4)]
    assert all(not np.allclose(found[i], found[j], atol=1e-3) for i in range(4) for j in range(i))
    assert np.isfinite(Transformers(path=str(folder)).prepare(16000)(0 * x)).all()


def test_a_click_is_seen_by_the_frames_around_it(tmp_path):
    raw("Wav2Vec2", tmp_path, feat_extract_norm="layer", do_stable_layer_norm=True, do_normalize=False)  # no mean over the clip
    e = Transformers(path=str(tmp_path), layer=0, pool="none")
    hop, first = e.axis(16000)
    assert (hop, first) == (10 / 16000, 29 / 2 / 16000)
    x, function = noise(4000)[:1], e.prepare(16000)
    for sample in (1000, 2004, 3017):
        clicked = x.copy()
        clicked[0, sample] += 1
        seen = np.flatnonzero(np.abs(function(clicked) - function(x))[0].max(axis=0) > 1e-4)
        assert len(seen) <= 12  # three frames hold the sample, and positions are told by a convolution over eight
        assert abs(first + hop * (seen[0] + seen[-1]) / 2 - sample / 16000) <= 1.1 * hop


def test_threads_do_not_disturb_each_other(wav2vec):
    e, clips = Transformers(path=str(wav2vec)), [noise(seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda x: e.prepare(16000)(x), clips))
    assert np.array_equal(np.stack(found), np.stack([e.prepare(16000)(x) for x in clips]))


def test_clips_too_short_and_too_long(folder):
    function, least = Transformers(path=str(folder)).prepare(16000), 400 if folder.name.startswith("AST") else 30
    assert function(noise(least)).shape == (2, 16)
    with pytest.raises(ClipError, match=f"too short for the model: expected at least {least} samples"):
        function(noise(least - 1))
    if folder.name.startswith("AST"):
        assert np.array_equal(function(noise(20000)[:, :10639]), function(noise(20000)[:, :10639]))
        with pytest.raises(ClipError, match=r"too long for the model, .* at most 10639 samples .* found 10640; put cut"):
            function(noise(10640))


def test_all_frames_that_are_allowed_are_seen(tmp_path):
    patches(tmp_path)
    front = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    x = noise(10639)[0]
    padded = lambda n: (front(x[:n], sampling_rate=16000, return_tensors="np")["input_values"][0] == front(
        x[:400], sampling_rate=16000, return_tensors="np")["input_values"][0, -1]).all(axis=1).sum()
    assert padded(10639) == 0 and padded(10639 - 160) == 1  # 64 frames; one fewer


def test_a_changed_model_is_another_one(wav2vec):
    x, before = noise(), Transformers(path=str(wav2vec))
    found = before.prepare(16000)(x)
    old = before.parameters()["digest"]
    torch.manual_seed(1)
    config = transformers.AutoConfig.from_pretrained(wav2vec)
    transformers.Wav2Vec2Model(config).save_pretrained(wav2vec)
    after = Transformers(path=str(wav2vec))
    assert after.parameters()["digest"] != old and not np.allclose(after.prepare(16000)(x), found, atol=1e-3)


def test_code_in_the_folder_is_not_run(wav2vec):
    config = json.loads((wav2vec / "config.json").read_text())
    ran = wav2vec / "ran"
    code = f"open({str(ran)!r}, 'w').close()\nfrom transformers import Wav2Vec2Config as C, Wav2Vec2Model as M\n"
    (wav2vec / "code.py").write_text(code)
    config |= {"auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M", "AutoFeatureExtractor": "code.F"}}
    (wav2vec / "config.json").write_text(json.dumps(config))
    assert Transformers(path=str(wav2vec)).prepare(16000)(noise()).shape == (2, 16)
    (wav2vec / "config.json").write_text(json.dumps(config | {"model_type": "something-of-their-own"}))
    with pytest.raises(ParameterError, match="transformers cannot load it"):
        Transformers(path=str(wav2vec)).prepare(16000)
    assert not ran.exists()


def test_pickled_weights_are_not_read(wav2vec):
    state = transformers.AutoModel.from_pretrained(wav2vec).state_dict()
    torch.save(state, wav2vec / "pytorch_model.bin")
    (wav2vec / "model.safetensors").rename(wav2vec / "other.safetensors")
    with pytest.raises(ParameterError, match="transformers cannot load it"):
        Transformers(path=str(wav2vec)).prepare(16000)


def test_missing_weights_are_not_made_up(wav2vec):
    from safetensors.torch import load_file, save_file

    state = load_file(wav2vec / "model.safetensors")
    gone = next(key for key in state if key.endswith("encoder.layers.1.attention.k_proj.weight"))
    save_file({key: tensor for key, tensor in state.items() if key != gone}, wav2vec / "model.safetensors", {"format": "pt"})
    with pytest.raises(ParameterError, match="found none for 1 of its tensors .*k_proj.weight.*would be random"):
        Transformers(path=str(wav2vec)).prepare(16000)


def test_goes_through_an_experiment_and_is_stored_by_content(wav2vec, tmp_path, capfd):
    def keys():
        experiment = mtcore.Experiment({
            "name": "embedded", "datasets": {"tones": {"reader": {"use": "core.tones", "count": 24}, "root": "."}},
            "signal": {"steps": [{"use": "resample", "rate": 16000}]},
            "inputs": {"main": {"extractor": {"use": "transformers", "path": str(wav2vec)}, "steps": ["standardize"]}},
            "split": {"folds": 1}, "model": {"trunk": {"use": "mlp", "hidden": [16]}}, "train": {"epochs": 1, "batch_size": 8},
        }, runs_folder=tmp_path / "runs", cache=tmp_path / "cache")
        run, = experiment.run()
        assert run.done and tuple(run.data().rows("train").batch(range(4)).inputs["main"].shape) == (4, 1, 16)
        return {path.name for path in (tmp_path / "cache" / "features").iterdir()}

    first = keys()
    assert len(first) == 1 and keys() == first
    transformers.Wav2Vec2Model(transformers.AutoConfig.from_pretrained(wav2vec)).save_pretrained(wav2vec)
    assert len(keys()) == 2
