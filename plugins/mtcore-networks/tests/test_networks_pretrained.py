"""A folder with a network of others, as far as it is known without transformers; extras/ holds the rest."""

import json
import sys

import pytest
from mtcore_networks.pretrained import Pretrained

from mtcore.plugin import ParameterError, PluginError


@pytest.fixture
def folder(tmp_path):
    """What a model's folder looks like from outside; the weights are none."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert", "conv_kernel": [10, 3], "conv_stride": [5, 2]}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16000}))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_the_content_is_part_of_the_parameters(folder):
    known = {Pretrained(path=str(folder)).parameters()["digest"]}
    changes = {"config.json": '{"conv_stride": []}', "preprocessor_config.json": "{}", "model.safetensors": "others!"}
    for name, content in changes.items():
        (folder / name).write_text(content)
        known.add(Pretrained(path=str(folder)).parameters()["digest"])
    (folder / "README.md").write_text("no part of it")
    assert len(known) == 4 and Pretrained(path=str(folder)).parameters()["digest"] in known


def test_parameters_make_the_same_trunk_again_and_refuse_another_network(folder):
    parameters = Pretrained(path=str(folder)).parameters()
    assert Pretrained(**parameters).parameters() == parameters
    (folder / "model.safetensors").write_bytes(b"others!")
    with pytest.raises(ParameterError, match="expected files with the digest .*found .*not the one that was meant"):
        Pretrained(**parameters)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_what_is_missing_is_said(folder, name):
    (folder / name).unlink()
    with pytest.raises(ParameterError, match=f"found no {name if name.endswith('json') else '.*safetensors'}"):
        Pretrained(path=str(folder))


def test_other_folders_are_refused(folder):
    with pytest.raises(ParameterError, match="found no such folder"):
        Pretrained(path=str(folder / "not here"))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ParameterError, match="expected a model of raw sound.*found model_type 'bert'"):
        Pretrained(path=str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ParameterError, match="config.json: expected JSON"):
        Pretrained(path=str(folder))


@pytest.mark.parametrize("shapes", [{"a": (1, 100), "b": (1, 100)}, {"a": (2, 100)}, {"a": (1, 20, 100)}, {"a": (100,)}])
def test_shapes_it_cannot_take(folder, shapes):
    with pytest.raises(ParameterError, match=r"takes one input of waveforms \[1, samples\], found a of .*; use the extractor"):
        Pretrained(path=str(folder)).build(shapes)


def test_without_transformers_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PluginError, match=r'pip install "mtcore-networks\[transformers\]"'):
        Pretrained(path=str(folder)).build({"a": (1, None)})
