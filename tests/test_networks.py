"""Trunks and heads of the core."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcore.builtin.heads import Frames, Linear
from mtcore.builtin.trunks import BatchNorm, Cnn, Cnn1d, Mlp
from mtcore.plugin import ParameterError, Representation, RepresentationShape, Task

few = settings(max_examples=20, deadline=None)
SPECTRUM, WAVE = Cnn(channels=[4, 6, 8], dropout=0.0), Cnn1d(channels=[4, 6], kernel=9)
TRUNKS = [(SPECTRUM, (1, 20, None)), (WAVE, (2, None)), (Cnn(channels=[5, 4], stride=3, batch_norm=False), (2, 7, None))]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def arrays(shape, frames, rows=3, seed=0):
    torch.manual_seed(seed)
    return {"main": torch.randn(rows, *shape[:-1], frames)}


def built(trunk, shape, seed=0):
    torch.manual_seed(seed)
    return trunk.build({"main": shape})


@given(frames=st.integers(1, 200), which=st.sampled_from(TRUNKS), training=st.booleans())
@few
def test_frames_are_the_inputs_frames_by_the_stride_rounded_up(frames, which, training):
    trunk, shape = which
    module = built(trunk, shape).train(training)
    vector, found, stride, *_ = module(arrays(shape, frames), None)
    assert found.shape == (3, found.shape[1], math.ceil(frames / stride))
    assert vector.shape == (3, 2 * found.shape[1])
    assert vector.isfinite().all()


@pytest.mark.parametrize("bins", [1, 12, 40, 128])
def test_default_cnn_takes_any_number_of_bins_and_trains_on_one_short_row(bins):
    module = Cnn().build({"main": (1, bins, None)})
    vector, frames, *_ = module({"main": torch.randn(1, 1, bins, 1)}, None)
    (vector.sum() + frames.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("trunk, shape", TRUNKS)
def test_padding_beyond_the_length_does_not_show(trunk, shape):
    module, lengths = built(trunk, shape).eval(), [37, 64, 5]
    padded = arrays(shape, 64)
    for row, length in enumerate(lengths):
        padded["main"][row, ..., length:] = 0
    vector, frames, stride, own = module(padded, {"main": torch.tensor(lengths)})
    assert own.tolist() == [math.ceil(length / stride) for length in lengths]
    for row, length in enumerate(lengths):
        alone = module({"main": padded["main"][row:row + 1, ..., :length]}, None)
        torch.testing.assert_close(vector[row:row + 1], alone.vector)
        torch.testing.assert_close(frames[row:row + 1, :, :math.ceil(length / stride)], alone.frames)
        assert not frames[row, :, math.ceil(length / stride):].any()


def test_frames_stand_where_the_sound_is():
    module = built(Cnn(channels=[4, 4], batch_norm=False), (1, 8, None)).eval()
    silence = torch.zeros(1, 1, 8, 160)
    click = silence.clone()
    click[..., 100] = 10
    quiet, loud = (module({"main": x}, None) for x in (silence, click))
    changed = (loud.frames - quiet.frames).abs().sum(1)[0].nonzero().flatten()
    assert len(changed) and abs(changed.float().mean() * loud.stride - 100) <= loud.stride


@pytest.mark.parametrize("trunk, shape", [*TRUNKS, (Mlp(hidden=[5], dropout=0.5, batch_norm=True), (1, 4, 10)),
                                          (Cnn(channels=[4], dropout=0.5), (1, 8, None)),
                                          (Cnn1d(channels=[4], dropout=0.5), (1, None))])
def test_evaluation_is_deterministic_and_rows_do_not_see_each_other(trunk, shape):
    module, inputs = built(trunk, shape), arrays(shape, 10)
    module(inputs, None)  # moves running statistics
    module.eval()
    first, again = module(inputs, None).vector, module(inputs, None).vector
    alone = module({"main": inputs["main"][1:2]}, None).vector
    assert torch.equal(first, again)
    torch.testing.assert_close(first[1:2], alone)


@pytest.mark.parametrize("trunk, shape", [(Cnn, (1, 8, 16)), (Cnn1d, (1, 64)), (Mlp, (1, 8, 16))])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_batch_norm_can_be_switched(trunk, shape, batch_norm):
    module = trunk(batch_norm=batch_norm).build({"main": shape})
    assert any(isinstance(part, BatchNorm) for part in module.modules()) == batch_norm


@pytest.mark.parametrize("trunk, shape", [(Cnn, (1, 8, 16)), (Cnn1d, (1, 64)), (Mlp, (1, 8, 16))])
def test_without_batch_norm_and_dropout_gradients_of_halves_add_up(trunk, shape):
    module, inputs = built(trunk(batch_norm=False, dropout=0.0), shape), arrays(shape, shape[-1], rows=4)["main"]
    gradients = []
    for parts in ([inputs], inputs.split(1)):
        module.zero_grad()
        for part in parts:
            module({"main": part}, None).vector.square().sum().backward()
        gradients.append([p.grad.clone() for p in module.parameters()])
    for whole, added in zip(*gradients):
        torch.testing.assert_close(whole, added, rtol=1e-4, atol=1e-4)


def test_dropout_acts_in_training():
    for trunk, shape in ((Cnn, (1, 8, 16)), (Cnn1d, (1, 64)), (Mlp, (1, 8, 16))):
        module, inputs = trunk(dropout=0.5).build({"main": shape}), arrays(shape, shape[-1])
        assert not torch.equal(module(inputs, None).vector, module(inputs, None).vector)


def test_batch_norm_equals_torch_and_one_row_leaves_its_statistics():
    ours, theirs = BatchNorm(4), torch.nn.BatchNorm2d(4)
    x = torch.randn(3, 4, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x))
    before = ours.running_mean.clone()
    assert ours(torch.randn(1, 4)).isfinite().all()
    assert torch.equal(ours.running_mean, before)


def test_mlp_joins_all_inputs_in_their_order():
    module = built(Mlp(hidden=[3]), (1, 2, 2))
    both = Mlp(hidden=[3]).build({"a": (1, 2, 2), "b": (5,)})
    with torch.no_grad():
        both.layers[0].weight[:, :4] = module.layers[0].weight
        both.layers[0].weight[:, 4:] = 0
        both.layers[0].bias[:] = module.layers[0].bias
    x = torch.randn(2, 1, 2, 2)
    found = both({"b": torch.randn(2, 5), "a": x}, None)
    torch.testing.assert_close(found.vector, module({"main": x}, None).vector)
    assert found.frames is None


@pytest.mark.parametrize("trunk, shapes, message", [
    (Cnn(), {"a": (1, 8, 16), "b": (1, 8, 16)}, r"one input, found 2 \(a, b\).*`inputs`"),
    (Cnn1d(), {"a": (1, 64), "b": (1, 64)}, r"one input, found 2 \(a, b\).*`inputs`"),
    (Cnn(), {"wave": (1, None)}, r"\[channels, bins, frames\], found 'wave' of shape \(1, None\).*cnn1d"),
    (Cnn(), {"main": (1, None, 10)}, r"\[channels, bins, frames\]"),
    (Cnn1d(), {"main": (1, 8, 16)}, r"\[channels, samples\].*use cnn"),
    (Mlp(), {"main": (1, 8, None)}, r"'main' have the shape \(1, 8, None\).*crop_or_pad"),
    (Mlp(hidden=[]), {"main": (1, 8)}, r"at least one layer"),
    (Cnn(kernel=4), {"main": (1, 8, 16)}, r"cnn: kernel is an odd.*found 4"),
    (Cnn(first_kernel=4), {"main": (1, 8, 16)}, r"first_kernel is an odd.*found 4"),
    (Cnn1d(kernel=80), {"main": (1, 64)}, r"cnn1d: kernel is an odd.*found 80"),
    (Cnn(channels=[]), {"main": (1, 8, 16)}, r"at least one block"),
    (Cnn1d(channels=[]), {"main": (1, 64)}, r"at least one block"),
])
def test_what_a_trunk_cannot_take_is_said(trunk, shapes, message):
    with pytest.raises(ParameterError, match=message):
        trunk.build(shapes)


TASKS = {"multiclass": Task.multiclass("t", "abc"), "binary": Task.binary("t"), "multilabel": Task.multilabel("t", "abc"),
         "regression": Task.regression("t")}
SHAPES = {"multiclass": (4, 3), "binary": (4,), "multilabel": (4, 3), "regression": (4,)}


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("hidden", [[], [5]])
def test_linear_head_by_kind(kind, hidden):
    head, task = Linear(hidden=hidden), TASKS[kind]
    module = head.build(task, RepresentationShape(6))
    vector = torch.randn(4, 6, requires_grad=True)
    output = module(Representation(vector))
    assert output.shape == SHAPES[kind]
    output.square().sum().backward()
    assert vector.grad.abs().sum(1).all()
    scores = head.scores(task, output.detach())
    expected = {"multiclass": lambda x: x.softmax(1), "regression": lambda x: x}.get(kind, torch.sigmoid)
    torch.testing.assert_close(scores, expected(output.detach()))
    assert module(Representation(torch.zeros(0, 6))).shape == (0, *SHAPES[kind][1:])


def test_linear_head_decides():
    head = Linear(threshold=0.4)
    assert head.decide(TASKS["multiclass"], np.array([[.1, .7, .2], [.5, .2, .3]])).tolist() == [1, 0]
    assert head.decide(TASKS["binary"], np.array([.39, .4, .9])).tolist() == [0, 1, 1]
    assert head.decide(TASKS["multilabel"], np.array([[.1, .4, .9]])).tolist() == [[0, 1, 1]]
    assert head.decide(TASKS["regression"], np.array([-3.5])).tolist() == [-3.5]


EVENTS = Task.events("e", "ab")


def test_frames_head_maps_each_frame_by_itself():
    head = Frames()
    module = head.build(EVENTS, RepresentationShape(8, 5, 4))
    frames = torch.randn(3, 5, 7)
    output = module(Representation(torch.zeros(3, 8), frames, 4))
    assert output.shape == (3, 2, 7)
    torch.testing.assert_close(module(Representation(None, frames[:1, :, 2:3], 4))[0, :, 0], output[0, :, 2])
    torch.testing.assert_close(head.scores(EVENTS, output), output.sigmoid())


activity = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30).map(lambda rows: np.array(rows, bool).reshape(-1, 2).T)


@given(active=activity)
@few
def test_events_draw_the_frames_they_were_decided_from(active):
    (events,) = Frames().decide(EVENTS, [np.where(active, 0.6, 0.4)])
    drawn = np.zeros_like(active)
    for onset, offset, label in events:
        assert onset < offset and not drawn[label, max(onset - 1, 0):offset].any()  # neighbours are merged
        drawn[label, onset:offset] = True
    assert np.array_equal(drawn, active)
    assert events == sorted(events)


def test_median_filter_closes_gaps_and_removes_clicks():
    scores = np.array([[0, 1, 1, 0, 1, 1, 0, 0, 0, 1, 0, 0], [0] * 12], float)
    assert Frames().decide(EVENTS, [scores]) == [[(1, 3, 0), (4, 6, 0), (9, 10, 0)]]
    assert Frames(median=3).decide(EVENTS, [scores, scores[:, :1]]) == [[(1, 6, 0)], []]


@pytest.mark.parametrize("head, task, shape, message", [
    (Frames(), EVENTS, RepresentationShape(6), "task e: .*frames"),
    (Frames(median=4), EVENTS, RepresentationShape(6, 5, 1), "odd number of frames, found 4"),
])
def test_what_a_head_cannot_take_is_said(head, task, shape, message):
    with pytest.raises(ParameterError, match=message):
        head.build(task, shape)
