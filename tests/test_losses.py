"""Losses and the balancer of the core, against torch's functional losses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mtcore.builtin.balancers import Sum
from mtcore.builtin.losses import BinaryCrossEntropy, CrossEntropy, MeanAbsoluteError, MeanSquaredError
from mtcore.plugin import Batch, ParameterError, Statistics, Task, TrainingError

few = settings(max_examples=25, deadline=None)
CLASSES, TAGS, EVENTS = Task.multiclass("c", "abc"), Task.multilabel("m", "abc"), Task.events("e", "ab")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def batch(rows=None, lengths=None):
    return Batch({}, {}, rows or {}, [], None if lengths is None else {"main": torch.tensor(lengths)})


def rows_of(loss, task, output, target, counts=None, **more):
    return loss.build(task, Statistics(rows=len(target), counts=counts))(output, target, batch(**more))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_torchs_and_its_gradient(smoothing):
    output, target = torch.randn(5, 3, requires_grad=True), torch.tensor([0, 2, 1, 1, 0])
    found = rows_of(CrossEntropy(label_smoothing=smoothing), CLASSES, output, target)
    assert found.shape == (5,)
    expected = F.cross_entropy(output, target, label_smoothing=smoothing)
    torch.testing.assert_close(found.mean(), expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, output)[0] for value in (found.mean(), expected)))


def test_balanced_weights_give_each_present_label_the_same_share():
    target = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    found = rows_of(CrossEntropy(class_weights="balanced"), CLASSES, torch.zeros(8, 3), target, counts=np.array([6, 2, 0]))
    torch.testing.assert_close(found[target == 0].sum(), found[target == 1].sum())
    torch.testing.assert_close(found.mean(), torch.tensor(3.0).log())  # the weights' mean is 1
    with pytest.raises(ParameterError, match="task c: .*rows per label"):
        CrossEntropy(class_weights="balanced").build(CLASSES, Statistics(rows=3))


@pytest.mark.parametrize("task, shape", [(Task.binary("b"), (6,)), (TAGS, (6, 3))])
def test_binary_cross_entropy_is_torchs(task, shape):
    output, target = torch.randn(shape) * 20, torch.randint(2, shape).float()
    found = rows_of(BinaryCrossEntropy(), task, output, target)
    assert found.shape == (6,) and found.isfinite().all()
    torch.testing.assert_close(found.mean(), F.binary_cross_entropy_with_logits(output, target))


@pytest.mark.parametrize("counts", [None, [4, 2], [6, 0], [0, 6]])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_binary_cross_entropy_is_cross_entropy_of_two_labels(smoothing, counts):
    task, balance = Task.binary("b"), "balanced" if counts else "none"
    output, target = 3 * torch.randn(6, requires_grad=True), torch.tensor([0.0] * 4 + [1.0] * 2)
    found = rows_of(BinaryCrossEntropy(label_smoothing=smoothing, class_weights=balance), task, output, target, counts)
    two = Task.multiclass("c", "ab")
    expected = rows_of(CrossEntropy(label_smoothing=smoothing, class_weights=balance), two,
                       torch.stack([torch.zeros(6), output], 1), target.long(), counts)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(*(torch.autograd.grad(v.sum(), output, retain_graph=True)[0] for v in (found, expected)),
                               atol=1e-4, rtol=1e-4)
    weights = counts and torch.tensor([6 / max(1, 2 * count) for count in counts])
    if counts == [4, 2]:
        smooth = target * (1 - smoothing) + smoothing / 2
        expected = F.binary_cross_entropy_with_logits(output, smooth, pos_weight=weights[1] / weights[0], reduction="none")
        torch.testing.assert_close(found, weights[0] * expected)


def test_balanced_weights_of_multilabel_and_events_are_per_label():
    target = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    found = rows_of(BinaryCrossEntropy(class_weights="balanced"), TAGS, torch.zeros(4, 3), target, np.array([1, 0, 4]))
    one = torch.tensor(2.0).log() / 3
    torch.testing.assert_close(found, one * torch.tensor([2 + 1 + 1, *[2 / 3 + 1 + 1] * 3]), rtol=1e-5, atol=1e-5)
    output, target = torch.randn(3, 2, 6), (torch.rand(3, 2, 12) < 0.3).float()
    found = rows_of(BinaryCrossEntropy(class_weights="balanced"), EVENTS, output, target, np.array([6, 2]),
                    rows={"e": slice(1, 4)}, lengths=[12, 12, 7, 12])
    pooled, weight = F.max_pool1d(target, 2), torch.tensor([[8 / 12], [8 / 4]])
    expected = F.binary_cross_entropy_with_logits(output, pooled, pos_weight=weight, reduction="none").mean(1)
    torch.testing.assert_close(found, torch.stack([expected[0].mean(), expected[1, :4].mean(), expected[2].mean()]))


@given(frames=st.integers(1, 60), stride=st.integers(1, 7), seed=st.integers(0, 99))
@few
def test_events_compare_each_output_frame_with_the_input_frames_it_stands_for(frames, stride, seed):
    torch.manual_seed(seed)
    target = (torch.rand(2, 2, frames) < 0.2).float()
    output = torch.randn(2, 2, -(-frames // stride))
    used = -(-frames // output.shape[-1])  # short inputs leave several strides possible
    pooled = torch.stack([target[..., i * used:(i + 1) * used].amax(-1) for i in range(-(-frames // used))], -1)
    found = rows_of(BinaryCrossEntropy(), EVENTS, output, target)
    assert found.shape == (2,)
    if pooled.shape == output.shape:
        torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(output, pooled, reduction="none").mean((1, 2)))
    if output.shape[-1] > stride:
        assert used == stride


def test_events_of_a_trunk_without_a_whole_stride_miss_no_event():
    target = torch.zeros(1, 1, 10)
    for frame in range(10):
        output, one = torch.full((1, 1, 7), -30.0), target.clone()
        one[..., frame] = 1
        assert rows_of(BinaryCrossEntropy(), Task.events("e", "a"), output, one) > 1


def test_events_leave_out_padding():
    target, output = torch.zeros(3, 2, 12), torch.randn(3, 2, 6)
    target[:, 0, 2:5] = 1
    found = rows_of(BinaryCrossEntropy(), EVENTS, output, target, rows={"e": torch.tensor([0, 2, 3])}, lengths=[12, 1, 7, 12])
    alone = rows_of(BinaryCrossEntropy(), EVENTS, output[1:2, :, :4], target[1:2, :, :7])
    torch.testing.assert_close(found[1:2], alone)
    torch.testing.assert_close(found[::2], rows_of(BinaryCrossEntropy(), EVENTS, output, target)[::2])


@pytest.mark.parametrize("loss, functional", [(MeanSquaredError(), F.mse_loss), (MeanAbsoluteError(), F.l1_loss)])
@pytest.mark.parametrize("task, shape", [(Task.regression("r"), (4,)), (Task.array("a", (2, 3)), (4, 2, 3))])
def test_differences_are_torchs(loss, functional, task, shape):
    output, target = torch.randn(shape), torch.randn(shape)
    found = rows_of(loss, task, output, target)
    assert found.shape == (4,)
    torch.testing.assert_close(found.mean(), functional(output, target))
    with pytest.raises(TrainingError, match=r"task .: expected an output of the target's shape"):
        rows_of(loss, task, output.unsqueeze(-1), target)


def test_sum_adds_weighted_gradients_of_the_tasks_that_are_there():
    shared = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    balancing = Sum().build({"a": 1.0, "b": 3.0, "absent": 5.0})
    for _ in range(2):  # micro-batches accumulate
        balancing.backward({"a": shared[0] ** 2, "b": (shared ** 2).sum()}, [shared], None, {})
    torch.testing.assert_close(shared.grad, 2 * torch.tensor([2 + 3 * 2.0, 3 * 4.0]))
    balancing.backward({}, [shared], None, {})
    assert balancing.state_dict() == {} and list(balancing.parameters()) == []
