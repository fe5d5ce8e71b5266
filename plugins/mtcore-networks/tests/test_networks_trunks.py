"""What holds for every trunk: sizes, padding that does not show, gradients, the same bits again, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_networks.convolutional import Resnet, Vgg
from mtcore_networks.sequential import ConvTransformer, Crnn

import mtcore
from mtcore.builtin.heads import Frames
from mtcore.plugin import ParameterError, Task
from mtcore.testing import parametrize_checks
from mtcore.training.model import build_model

few = settings(max_examples=15, deadline=None)
SMALL = [Vgg(channels=[4, 6]), Vgg(channels=[4, 3], stride=1, batch_norm=False), Resnet(channels=[4, 6], blocks=[1, 2]),
         Resnet(channels=[4], blocks=[1], stride=1, bins="all"), Crnn(channels=[4, 5], pool=[3, 4], hidden=6),
         Crnn(channels=[4], pool=[5], stride=2, hidden=5, layers=2, bidirectional=False, batch_norm=False, kernel=3),
         ConvTransformer(channels=[4, 4], width=8, heads=2, layers=2, feed_forward=8),
         ConvTransformer(channels=[4], stride=3, width=9, heads=3, layers=1, feed_forward=8)]
EACH = [SMALL[i] for i in (0, 2, 4, 6)]
STRIDES = [4, 1, 8, 1, 1, 2, 4, 3]


@parametrize_checks("networks")
def test_conformance(check):
    check()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def built(trunk, shape=(2, 20, None)):
    """With running statistics that are not those of the beginning."""
    torch.manual_seed(0)
    module = trunk.build({"main": shape})
    module({"main": 3 * torch.randn(4, *shape[:-1], 30) + 1}, None)
    return module


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("which", range(len(SMALL)))
@given(frames=st.integers(1, 70), bins=st.integers(1, 40), rows=st.integers(1, 3))
@few
def test_sizes_for_any_number_of_rows_bins_and_frames(which, training, frames, bins, rows):
    module = SMALL[which].build({"main": (2, bins, None)}).train(training)
    vector, found, stride, *_ = module({"main": torch.randn(rows, 2, bins, frames)}, None)
    assert stride == STRIDES[which]
    assert found.shape == (rows, found.shape[1], math.ceil(frames / stride)) and vector.shape == (rows, 2 * found.shape[1])
    assert vector.isfinite().all() and found.isfinite().all()


@pytest.mark.parametrize("trunk", SMALL)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4), more=st.integers(0, 9))
@few
def test_padding_does_not_show(trunk, lengths, more):
    module = built(trunk).eval()
    x = 2 * torch.randn(len(lengths), 2, 20, max(lengths) + more)  # whatever stands beyond the lengths
    with torch.no_grad():
        vector, frames, stride, left = module({"main": x}, {"main": torch.tensor(lengths)})
        assert left.tolist() == [math.ceil(length / stride) for length in lengths]
        for row, length in enumerate(lengths):
            alone = module({"main": x[row:row + 1, ..., :length]}, None)
            own = math.ceil(length / stride)
            torch.testing.assert_close(vector[row:row + 1], alone.vector, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(frames[row:row + 1, :, :own], alone.frames, rtol=1e-4, atol=1e-5)
            assert not frames[row, :, own:].any()


@pytest.mark.parametrize("trunk", SMALL)
def test_vector_is_mean_and_maximum_of_a_rows_own_frames(trunk):
    lengths = torch.tensor([40, 7, 1])
    vector, frames, stride, *_ = built(trunk).eval()({"main": torch.randn(3, 2, 20, 40)}, {"main": lengths})
    for row, length in enumerate(lengths.tolist()):
        own = frames[row, :, :math.ceil(length / stride)]
        torch.testing.assert_close(vector[row], torch.cat([own.mean(1), own.amax(1)]))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("trunk", [*SMALL, Vgg(), Resnet(), Crnn(), ConvTransformer()])
def test_gradients_reach_every_parameter_and_no_padding(trunk, padded):
    module, x = built(trunk), torch.randn(3, 2, 20, 40, requires_grad=True)
    lengths = torch.tensor([40, 11, 23]) if padded else None
    vector, frames, stride, *_ = module({"main": x}, {"main": lengths} if padded else None)
    (vector.square().sum() + frames.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in module.parameters())
    assert x.grad[0].any() and (not padded or not x.grad[1, ..., 11:].any())


@pytest.mark.parametrize("frames", [1, 5, 50])
@pytest.mark.parametrize("trunk", SMALL)
def test_one_row_trains(trunk, frames):
    module = trunk.build({"main": (1, 9, None)})
    vector, found, *_ = module({"main": torch.randn(1, 1, 9, frames)}, None)
    (vector.square().sum() + found.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("trunk", SMALL)
def test_same_bits_again(trunk, deterministic):
    def gradients():
        module, x = built(trunk), torch.randn(3, 2, 20, 40)
        vector, frames, *_ = module({"main": x}, {"main": torch.tensor([40, 11, 23])})
        (vector.square().sum() + frames.square().sum()).backward()
        return torch.cat([vector.flatten(), *[p.grad.flatten() for p in module.parameters()]])

    torch.manual_seed(0)
    first = gradients()
    torch.manual_seed(0)
    assert torch.equal(first, gradients())


@pytest.mark.parametrize("trunk", SMALL)
def test_dropout_acts_in_training_only(trunk):
    module, x = built(trunk), {"main": torch.randn(2, 2, 20, 30)}
    assert not torch.equal(module(x, None).vector, module(x, None).vector)
    module.eval()
    assert torch.equal(module(x, None).vector, module(x, None).vector)


@pytest.mark.parametrize("trunk", [Vgg(channels=[4, 4]), Resnet(channels=[4, 4], blocks=[1, 1]), Crnn(channels=[4], pool=[2]),
                                   ConvTransformer(channels=[4, 4])])
def test_frames_stand_where_the_sound_is(trunk):
    module = built(trunk, (1, 8, None)).eval()
    silence = torch.zeros(1, 1, 8, 160)
    click = silence.clone()
    click[..., 100] = 10
    quiet, loud = (module({"main": x}, None) for x in (silence, click))
    changed = (loud.frames - quiet.frames).abs().sum(1)[0]
    assert abs(int(changed.argmax()) * loud.stride - 100) <= loud.stride


def test_order_matters_to_recurrence_and_to_attention():
    for trunk in (Crnn(channels=[4], pool=[4], kernel=1), ConvTransformer(channels=[4], stride=1, width=8, heads=2)):
        module = built(trunk).eval()
        x = torch.zeros(2, 2, 20, 32)
        x[0, ..., 8], x[1, ..., 24] = 3, 3
        first, second = module({"main": x}, None).vector
        assert not torch.allclose(first, second, atol=1e-3)


def test_a_frame_tells_high_from_low_with_all_bins():
    low = torch.zeros(1, 1, 256, 20)
    low[:, :, 96] = 3
    high = low.roll(64, 2)
    for trunk in (lambda bins: Vgg(channels=[4, 4], bins=bins), lambda bins: Resnet(channels=[4, 4], blocks=[1, 1], bins=bins)):
        for bins, told in (("mean", False), ("all", True)):
            module = trunk(bins).build({"main": (1, 256, None)})
            first, second = (module.eval()({"main": x}, None).vector for x in (low, high))
            assert torch.allclose(first, second, atol=1e-4) != told


def test_layers_of_the_encoder_do_not_begin_alike():
    module = ConvTransformer().build({"main": (1, 20, None)})
    one, two = (layer.linear1.weight for layer in module.frames.encoder.layers[:2])
    assert not torch.equal(one, two)


@pytest.mark.parametrize("trunk", EACH)
def test_several_events_tasks_share_its_frames(trunk):
    tasks = {name: Task.events(name, labels) for name, labels in (("beep", ("beep",)), ("bird", ("owl", "tit")))}
    model = build_model({"main": trunk}, {"main": ["mel"]}, {"mel": (1, 20, None)}, tasks, dict.fromkeys(tasks, Frames()),
                        dict.fromkeys(tasks, ["main"]))
    found = model({"mel": torch.randn(3, 1, 20, 33)}, {"mel": torch.tensor([33, 7, 20])}).tasks
    frames = math.ceil(33 / STRIDES[SMALL.index(trunk)])
    assert {name: tuple(one.shape) for name, one in found.items()} == {"beep": (3, 1, frames), "bird": (3, 2, frames)}


@pytest.mark.parametrize("trunk", EACH)
@pytest.mark.parametrize("shapes, says", [
    ({"a": (1, 20, None), "b": (1, 20, None)}, r"takes one input, found 2 \(a, b\)"),
    ({"main": (1, None)}, r"takes arrays \[channels, bins, frames\], found 'main' of shape \(1, None\); use an extractor"),
    ({"main": (1, None, 20)}, r"found 'main' of shape \(1, None, 20\)"), ({"main": (7,)}, r"found 'main' of shape \(7,\)")])
def test_what_it_cannot_take_is_said(trunk, shapes, says):
    with pytest.raises(ParameterError, match=says):
        trunk.build(shapes)


@pytest.mark.parametrize("trunk, says", [
    (Vgg(channels=[]), "vgg: expected channels for at least one block"),
    (Resnet(blocks=[2, 2]), "resnet: expected a number in blocks for each of the 4 blocks"),
    (Crnn(pool=[4]), "in pool for each of the 3 blocks"),
    (Crnn(kernel=4), "kernel is an odd number, found 4"), (ConvTransformer(width=50, heads=4), "multiple of 4 heads, found 50")])
def test_parameters_that_contradict_each_other(trunk, says):
    with pytest.raises(ParameterError, match=says):
        trunk.build({"main": (1, 20, None)})


@pytest.mark.parametrize("trunk, shape, told, rest", [
    (Vgg(channels=[64, 128, 256, 512]), (1, 64, None), 5_219_279, 512 * 513 + 527 * 513 + 2 * 64),  # Kong et al.: CNN10
    (Vgg(channels=[64, 128, 256, 512, 1024, 2048]), (1, 64, None), 80_753_615, 2048 * 2049 + 527 * 2049 + 2 * 64),  # and CNN14
    (Resnet(channels=[64, 128, 256, 512]), (3, 224, 224), 11_689_512, 1000 * 513),  # torchvision's resnet18
    (Resnet(channels=[64, 128, 256, 512], blocks=[3, 4, 6, 3]), (3, 224, 224), 21_797_672, 1000 * 513)])  # and resnet34
def test_as_many_parameters_as_the_originals(trunk, shape, told, rest):
    """`rest`: those of linear layers behind the frames, and of the normalisation of the input in front of the CNNs."""
    with torch.device("meta"):
        module = trunk.build({"main": shape})
    assert sum(p.numel() for p in module.parameters()) == told - rest


RUNS = [{"use": "networks.vgg", "channels": [8, 16], "bins": "all"},
        {"use": "networks.resnet", "channels": [8, 16], "blocks": [1, 1], "bins": "all"},
        {"use": "networks.crnn", "channels": [8, 8], "pool": [4, 4], "hidden": 16, "stride": 2},
        {"use": "networks.conv_transformer", "channels": [8, 8], "width": 24, "layers": 1, "feed_forward": 32}]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(tmp_path, cache):
    def run(trunk, epochs, count, runs="runs"):
        one, = mtcore.Experiment({
            "name": "tones", "datasets": {"tones": {"reader": {"use": "core.tones", "count": count}}},
            "inputs": {"main": {"extractor": {"use": "core.spectrogram", "hop": 0.02}, "steps": ["core.standardize"]}},
            "split": {"folds": 1, "validation": 0.15}, "model": {"trunk": trunk},
            "train": {"epochs": epochs, "batch_size": 8, "optimizer": {"use": "adamw", "lr": 5e-3}},
            "report": {"reporters": []}}, tmp_path, tmp_path / runs, cache).run()
        return one.folder

    return run


@pytest.mark.parametrize("trunk", RUNS, ids=lambda trunk: trunk["use"])
def test_it_learns_two_tasks_of_one_dataset(train, trunk):
    """Of four timbres, and pitches whose mean explains nothing (r2 = 0)."""
    found = {line["metric"]: line["value"] for line in train(trunk, 6, 120).metrics("test")
             if line["metric"] in ("accuracy", "r2") and line["checkpoint"] == "last"}
    assert found["accuracy"] >= 0.45 and found["r2"] >= 0.5


@pytest.mark.parametrize("trunk", RUNS, ids=lambda trunk: trunk["use"])
def test_a_run_and_its_continuation(train, trunk):
    train(trunk, 1, 24, "cut")
    one, two = (torch.load(train(trunk, 2, 24, runs).checkpoint("last"), weights_only=True)["model"] for runs in ("cut", "whole"))
    assert all(torch.equal(one[key], two[key]) for key in two)
