"""Networks of others, as far as they are known without the libraries that run them; extras/ holds the rest."""

import json
import sys

import pytest
from mtcore_features.pretrained import Onnx, Transformers
from mtcore_features.smile import OpenSmile

from mtcore.plugin import Axis, ParameterError, PluginError

WAV2VEC = {"model_type": "wav2vec2", "num_hidden_layers": 12, "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
           "conv_stride": [5, 2, 2, 2, 2, 2, 2]}


@pytest.fixture
def folder(tmp_path):
    """What a model's folder looks like from outside; the weights are none."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(WAV2VEC))
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16000}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def file(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"weights")
    return tmp_path / "net.onnx"


def spectrogram_transformer(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "audio-spectrogram-transformer", "num_hidden_layers": 2}))


def test_the_content_is_part_of_the_parameters(folder, file):
    for extractor, weights in ((lambda: Transformers(path=str(folder)), folder / "model.safetensors"),
                               (lambda: Onnx(path=str(file), rate=8000), file)):
        before = extractor().parameters()
        assert before == extractor().parameters() and before["path"]
        weights.write_bytes(b"others!")  # as long as before
        after = extractor().parameters()
        assert before["digest"] != after["digest"]
        weights.write_bytes(b"weights")
        assert extractor().parameters() == before


def test_all_files_that_matter_are_in_the_digest_and_no_others(folder):
    digest = lambda: Transformers(path=str(folder)).parameters()["digest"]
    known = {digest()}
    for name in ("config.json", "preprocessor_config.json", "model-2.safetensors"):
        path = folder / name
        path.write_text(path.read_text() + " " if path.exists() else "")
        known.add(digest())
    (folder / "README.md").write_text("changed")
    assert len(known) == 4 and digest() in known


def test_parameters_make_the_same_extractor_again_and_refuse_another_network(folder, file):
    for extractor, weights in ((Transformers(path=str(folder), layer=3), folder / "model.safetensors"),
                               (Onnx(path=str(file), rate=8000), file)):
        parameters = extractor.parameters()
        assert type(extractor)(**parameters).parameters() == parameters
        weights.write_bytes(b"retrained")
        with pytest.raises(ParameterError, match=f"files with the digest {parameters['digest']}, found .*leave digest out"):
            type(extractor)(**parameters)


def test_places(folder, file, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("MODELS", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    paths = (str(folder), "~/model", "$MODELS/model", "model")
    assert len({Transformers(path=path).parameters()["digest"] for path in paths}) == 1


def test_frames_lie_where_the_convolutions_look(folder):
    assert Transformers(path=str(folder), pool="none").axis(16000) == Axis(0.02, 399 / 2 / 16000)  # 25 ms every 20 ms
    assert Transformers(path=str(folder)).axis(16000) is None
    assert Onnx.axis(None, 8000) is None and OpenSmile().axis(8000) is None


@pytest.mark.parametrize("change, options, message", [
    (lambda folder: (folder / "model.safetensors").unlink(), {}, r"weights as safetensors, found no \*.safetensors"),
    (lambda folder: (folder / "config.json").unlink(), {}, "found no config.json"),
    (lambda folder: (folder / "preprocessor_config.json").unlink(), {}, "found no preprocessor_config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), {}, "config.json: expected JSON"),
    (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), {}, "raw sound .* found model_type 'bert'"),
    (lambda folder: None, {"layer": 13}, "layer from -13 to 12, found 13"),
    (lambda folder: None, {"layer": -14}, "layer from -13 to 12, found -14"),
    (spectrogram_transformer, {"pool": "none"}, "has patches, not frames; expected pool mean or first"),
    (lambda folder: folder.rename(folder.parent / "elsewhere"), {}, "found no such folder")])
def test_what_is_wrong_with_a_model_is_said_when_it_is_named(folder, change, options, message):
    change(folder)
    with pytest.raises(ParameterError, match=message):
        Transformers(path=str(folder), **options)


def test_what_is_wrong_with_a_file_is_said_when_it_is_named(tmp_path):
    for path, found in ((tmp_path, "a folder"), (tmp_path / "none.onnx", "nothing there")):
        with pytest.raises(ParameterError, match=f"expected an ONNX file, found {found}"):
            Onnx(path=str(path), rate=8000)


def test_a_wrong_rate_is_an_error(folder, file):
    for extractor, right in ((Transformers(path=str(folder)), 16000), (Onnx(path=str(file), rate=24000), 24000)):
        with pytest.raises(ParameterError, match=f'sound at {right} Hz, .* 8000 Hz; put {{use = "resample", rate = {right}}}'):
            extractor.prepare(8000)
        with pytest.raises(ParameterError, match="expected sound with a sampling rate"):
            extractor.prepare(None)


def test_a_library_that_is_absent_is_named_with_its_extra(folder, file, monkeypatch):
    for library, extractor in (("opensmile", OpenSmile()), ("transformers", Transformers(path=str(folder))),
                               ("onnxruntime", Onnx(path=str(file), rate=16000))):
        monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
        with pytest.raises(PluginError, match=rf'expected the library {library}.*pip install "mtcore-features\[{library}\]"'):
            extractor.prepare(16000)
