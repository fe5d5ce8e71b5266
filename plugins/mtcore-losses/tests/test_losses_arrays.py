"""SI-SDR against its formula, and reconstruction of an input from what the trunk hands over."""

import numpy as np
import pytest
import torch
from mtcore_losses.arrays import Reconstruction, ReconstructionError, SiSdr
from mtcore_losses.regression import Huber

from mtcore.plugin import Batch, ParameterError, Representation, RepresentationShape, Statistics, Task, TrainingError

ARRAY, NONE, SHAPE = Task.array("x", (2, None)), Task.none("x"), RepresentationShape(6, 5, 4)


def rows_of(loss, task, output, target, batch=None):
    return loss.build(task, Statistics(len(output)))(output, target, batch or Batch({}, {}, {}, []))


def si_sdr(target, given):
    """From the angle between the two."""
    cosine = (target @ given) ** 2 / ((target @ target) * (given @ given))
    return 10 * np.log10(cosine / (1 - cosine))


@pytest.mark.parametrize("scale", [1, -3.0, 20.0])
def test_si_sdr_is_its_formula_whatever_the_scale_and_the_padding(scale):
    rng = np.random.default_rng(0)
    target = rng.normal(size=(3, 2, 50))
    output = scale * (target + 0.5 * rng.normal(size=target.shape))
    lengths = (50, 31, 12)
    expected = [-np.mean([si_sdr(t[:size], o[:size]) for t, o in zip(*pair)]) for *pair, size in zip(target, output, lengths)]
    for row, size in enumerate(lengths):
        target[row, :, size:] = np.nan
    more = ((0, 0), (0, 0), (0, 2))  # of a last frame, partly filled
    output = torch.tensor(np.pad(output, more, constant_values=9.0), requires_grad=True)
    rows = rows_of(SiSdr(), ARRAY, output, torch.tensor(target))
    np.testing.assert_allclose(rows.detach(), expected, rtol=1e-5)
    rows.sum().backward()
    assert output.grad.isfinite().all() and not output.grad[1, :, 31:].any() and not output.grad[..., 50:].any()


def test_si_sdr_of_copies_and_silence_is_finite_and_teaches_finitely():
    sound, silence = torch.randn(2, 2, 20, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 2, 20)
    for output, target in ((sound, sound), (sound, silence), (silence, sound), (silence, silence)):
        output = output.clone().requires_grad_()
        rows = rows_of(SiSdr(), ARRAY, output, target)
        rows.sum().backward()
        assert rows.isfinite().all() and output.grad.isfinite().all()
    assert (rows_of(SiSdr(), ARRAY, 2 * sound, sound) < -60).all()
    with pytest.raises(TrainingError, match=r"output of shape \(2, 2, 20\), found \(2, 1, 20\)"):
        rows_of(SiSdr(), ARRAY, sound[:, :1], sound)


def test_huber_leaves_padding_out():
    output, target = torch.randn(2, 2, 12, generator=torch.Generator().manual_seed(0), requires_grad=True), torch.zeros(2, 2, 10)
    target[1, :, 6:] = torch.nan
    rows = rows_of(Huber(delta=0.5), ARRAY, output, target)
    expected = [torch.nn.functional.huber_loss(output[i, :, :size], target[i, :, :size], delta=0.5)
                for i, size in enumerate((10, 6))]
    torch.testing.assert_close(rows, torch.stack(expected))
    rows.sum().backward()
    assert output.grad.isfinite().all() and not output.grad[1, :, 6:].any()


@pytest.mark.parametrize("sizes, expected", [([1, 3, -1], (2, 1, 3, 40)), ([3, 7], (2, 3, 7)), ([5], (2, 5))])
def test_a_reconstruction_has_the_inputs_shape_and_leaves_no_predictions(sizes, expected):
    head = Reconstruction(shape=sizes)
    output = head.build(NONE, SHAPE)(Representation(torch.randn(2, 6), torch.randn(2, 5, 10), 4))
    assert tuple(output.shape) == expected and tuple(head.scores(NONE, output).shape) == (2, 0)


@pytest.mark.parametrize("sizes, shape, message", [
    ([], SHAPE, "expected shape"), ([-1, 3], SHAPE, "the last one may be -1"), ([0, 3], SHAPE, "positive sizes"),
    ([3, -1], RepresentationShape(6), "trunk that gives frames")])
def test_shapes_that_a_reconstruction_cannot_have(sizes, shape, message):
    with pytest.raises(ParameterError, match=message):
        Reconstruction(shape=sizes).build(NONE, shape)


@pytest.mark.parametrize("own", [slice(0, 3), torch.tensor([2, 0])])
def test_a_reconstruction_is_compared_with_its_own_rows_up_to_their_ends(own):
    inputs = torch.randn(3, 1, 4, 10, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([10, 6, 3])
    batch = Batch({"spec": inputs}, {}, {"x": own}, ["a", "b", "c"], {"spec": lengths})
    wanted, kept = inputs[own], lengths[own]
    output = torch.randn(len(wanted), 1, 4, 12, generator=torch.Generator().manual_seed(1))
    rows = rows_of(ReconstructionError(input="spec"), NONE, output, torch.zeros(len(wanted), 0), batch)
    expected = [((o[..., :size] - w[..., :size]) ** 2).mean() for o, w, size in zip(output, wanted, kept)]
    torch.testing.assert_close(rows, torch.stack(expected))
    whole = Batch({"spec": inputs}, {}, {"x": own}, ["a", "b", "c"])
    plain = rows_of(ReconstructionError(input="spec"), NONE, output[..., :10], torch.zeros(len(wanted), 0), whole)
    torch.testing.assert_close(plain, ((output[..., :10] - wanted) ** 2).mean((1, 2, 3)))


def test_an_input_that_is_not_there_is_named():
    with pytest.raises(TrainingError, match="expected one of the inputs spec, found 'main'; set tasks.x.loss.input"):
        rows_of(ReconstructionError(), NONE, torch.zeros(1, 1), None,
                Batch({"spec": torch.zeros(1, 1)}, {}, {"x": slice(0, 1)}, ["a"]))
