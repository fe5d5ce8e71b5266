"""`mtcore info EXPERIMENT`: what the networks hold, and the picture of gradients' cosines."""

from __future__ import annotations

import json

import numpy as np
from click.testing import CliRunner

from mtcore.builtin.tensorboard import cosine_picture
from mtcore.cli import main

FILE = """
name = "drawn"
[datasets.tones]
reader = {use = "core.tones", count = 24}
[inputs.main]
extractor = {use = "core.spectrogram", hop = 0.032}
steps = [{use = "core.crop_or_pad", length = 10}]
[split]
folds = 1
[model]
trunk = {use = "core.mlp", hidden = [7]}
[vary]
tasks = ["singles", "all"]
"""


def test_networks_of_each_variation(tmp_path):
    (tmp_path / "drawn.toml").write_text(FILE)
    command = ["info", str(tmp_path / "drawn.toml"), "--cache", str(tmp_path / "cache")]
    found = json.loads(CliRunner().invoke(main, [*command, "--json"], catch_exceptions=False).stdout)
    assert [one["variation"] for one in found] == ["timbre", "pitch", "timbre+pitch"]
    together = found[2]
    size, timbre, pitch = 129 * 10, 4, 1
    trunk, heads = 7 * size, {"timbre": 7 * timbre, "pitch": 7 * pitch}
    assert together["parameters"] == trunk + 7 + sum(heads.values()) + timbre + pitch
    assert together["multiply_adds"] == trunk + sum(heads.values())
    for task, labels in (("timbre", timbre), ("pitch", pitch)):
        assert together["tasks"][task] == {"parameters": trunk + 7 + heads[task] + labels, "multiply_adds": trunk + heads[task]}
    rows = {name: rest for name, *rest in together["modules"]}
    assert rows["trunks.main"] == ["Flat", "[7]", trunk + 7, trunk]
    text = CliRunner().invoke(main, command, catch_exceptions=False).stdout
    assert "trunks.main" in text and "timbre+pitch: a row is main [1, 129, 10]" in text
    assert not (tmp_path / "runs").exists()


def test_a_picture_of_cosines():
    picture = cosine_picture({("a", "b"): -0.5, ("b", "a"): -0.5}, ["a", "b"])
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
