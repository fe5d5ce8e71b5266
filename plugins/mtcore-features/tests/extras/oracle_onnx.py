"""ONNX files against torch, with a small network made here."""

import numpy as np
import onnx
import pytest
import torch
from mtcore_features.pretrained import Onnx
from onnx import TensorProto, helper, numpy_helper

from mtcore.plugin import ClipError, ParameterError

WEIGHTS = np.random.default_rng(0).standard_normal((6, 1, 40)).astype(np.float32)
FLOAT = TensorProto.FLOAT


def network(shape=(1, "n"), kind=FLOAT, outputs=("frames", "best")):
    """A convolution over sound, rectified: its frames, and the highest over time."""
    nodes = [helper.make_node("Unsqueeze", ["sound", "axis"], ["raised"]),
             helper.make_node("Conv", ["raised", "weights"], ["filtered"], strides=[20]),
             helper.make_node("Relu", ["filtered"], ["positive"]),
             helper.make_node("Transpose", ["positive"], ["frames"], perm=[0, 2, 1]),
             helper.make_node("GlobalMaxPool", ["positive"], ["pooled"]), helper.make_node("Flatten", ["pooled"], ["best"])]
    shapes = {"frames": [1, "frames", 6], "best": [1, 6], "positive": [1, 6, "frames"]}
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("sound", kind, shape)],
                              [helper.make_tensor_value_info(name, FLOAT, shapes[name]) for name in outputs],
                              [numpy_helper.from_array(WEIGHTS, "weights"), numpy_helper.from_array(np.array([1]), "axis")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def path(tmp_path):
    onnx.save_model(network(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def noise(n=1000):
    return np.random.default_rng(1).standard_normal((2, n)).astype(np.float32)


def test_equals_torch(path):
    x = noise()
    expected = torch.relu(torch.conv1d(torch.from_numpy(x)[:, None], torch.from_numpy(WEIGHTS), stride=20)).numpy()
    for output, pooled in (("frames", expected.mean(-1)), ("best", expected.max(-1))):
        found = Onnx(path=str(path), rate=8000, output=output).prepare(8000)(x)
        assert found.dtype == np.float32 and found.shape == (2, 6) and np.allclose(found, pooled, atol=1e-5)
    onnx.save_model(network(outputs=("best",)), path)
    assert np.array_equal(found, Onnx(path=str(path), rate=8000).prepare(8000)(x))
    assert not Onnx(path=str(path), rate=8000).prepare(8000)(0 * x).any()


def test_a_clip_too_short_is_an_error(path):
    function = Onnx(path=str(path), rate=8000, output="best").prepare(8000)
    assert function(noise(40)).shape == (2, 6)
    with pytest.raises(ClipError, match="the network does not take 39 samples: "):
        function(noise(39))


@pytest.mark.parametrize("model, output, message", [
    (network(), None, "expected output as one of frames, best; found None"),
    (network(), "worst", "expected output as one of frames, best; found worst"),
    (network(outputs=("best",)), "worst", "expected output as one of best; found worst"),
    (network(shape=(1, 1, "n")), "best", "onnxruntime cannot load it|expected one input"),
    (network(kind=TensorProto.DOUBLE), "best", "onnxruntime cannot load it|expected one input")])
def test_networks_and_outputs_that_do_not_fit(tmp_path, model, output, message):
    onnx.save_model(model, tmp_path / "net.onnx")
    with pytest.raises(ParameterError, match=message):
        Onnx(path=str(tmp_path / "net.onnx"), rate=8000, output=output).prepare(8000)


def test_what_is_no_network_is_an_error(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ParameterError, match="net.onnx: onnxruntime cannot load it"):
        Onnx(path=str(tmp_path / "net.onnx"), rate=8000).prepare(8000)


def test_weights_outside_the_digest_are_not_read(path, monkeypatch):
    onnx.save_model(network(outputs=("best",)), path, save_as_external_data=True, location="weights", size_threshold=100)
    assert (path.parent / "weights").exists()
    monkeypatch.chdir(path.parent)
    with pytest.raises(ParameterError, match="onnxruntime cannot load it"):
        Onnx(path=str(path), rate=8000).prepare(8000)
