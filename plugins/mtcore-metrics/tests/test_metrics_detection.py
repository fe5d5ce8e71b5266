"""Events against sed_eval, SI-SDR against its formula."""

import itertools
import sys
import types
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mtcore_metrics.arrays import SiSdr
from mtcore_metrics.detection import EventBased, SegmentBased, matched

from mtcore.plugin import ParameterError, Predictions, Task

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # dcase_util, which sed_eval rests on, imports a module that setuptools 81 dropped, and needs it for its examples only
    absent = "pkg_resources" not in sys.modules
    sys.modules.setdefault("pkg_resources", types.ModuleType("pkg_resources"))
    from sed_eval.sound_event import EventBasedMetrics, SegmentBasedMetrics
    if absent:
        del sys.modules["pkg_resources"]

LABELS = ("a", "b", "c")
TASK = Task.events("e", LABELS)
times = st.integers(0, 40).map(lambda tenths: tenths / 10)
one = st.tuples(times, st.integers(1, 30), st.integers(0, 2)).map(lambda event: (event[0], event[0] + event[1] / 10, event[2]))
listed = st.lists(one, max_size=5)
clips = st.lists(st.tuples(listed, listed), min_size=1, max_size=4)
few = settings(max_examples=60, deadline=None)


def predictions(pairs, trained=None):
    true, decided = zip(*pairs)
    return Predictions(TASK, [f"s/{i}" for i in range(len(pairs))], None, list(decided), list(true), trained=trained)


def figures(metric, *found):
    measure = metric.build(TASK)
    for one in found:
        measure.update(one)
    return measure.compute()


def judged(reference, pairs):
    """sed_eval's figures by our names, those that are defined: what has no true event is divided by almost 0 there."""
    of = "event" if isinstance(reference, EventBasedMetrics) else "segment"
    for pair in pairs:
        reference.evaluate(*([{"event_onset": onset, "event_offset": offset, "event_label": LABELS[label], "file": "f"}
                              for onset, offset, label in events] for events in pair))
    found, overall = {}, reference.overall
    if overall["Nref"]:
        found |= {f"{name}_{of}": value for name, value in reference.overall_error_rate().items()}
        found |= {f"{name.replace('f_measure', 'f1')}_{of}": value for name, value in reference.overall_f_measure().items()}
    elif overall["Nsys"]:
        found[f"f1_{of}"] = 0.0
    tested = [label for label in LABELS if reference.class_wise[label]["Nref"]]
    for label in tested:
        one = {"error_rate": reference.class_wise_error_rate(label)["error_rate"],
               **{name.replace("f_measure", "f1"): value for name, value in reference.class_wise_f_measure(label).items()}}
        found |= {f"{name}_{of}/{label}": value for name, value in one.items()}
        found[f"support_{of}/{label}"] = reference.class_wise[label]["Nref"]
    for name in ("f1", "precision", "recall", "error_rate") if tested else ():
        found[f"{name}_{of}_macro"] = np.mean([found[f"{name}_{of}/{label}"] for label in tested])
    return found


@few
@given(clips, st.sampled_from([(True, True), (True, False), (False, True)]),
       st.sampled_from([(0.2, 0.2), (0.5, 0.5), (0.1, 0.0)]))
@example([([], [])], (True, True), (0.2, 0.2))
@example([([], [(0.0, 1.0, 1)])], (True, True), (0.2, 0.2))
@example([([(0.0, 1.0, 1)], [])], (True, True), (0.2, 0.2))
@example([([(0.0, 1.0, 1)], [(0.0, 1.0, 2)])], (True, True), (0.2, 0.2))
def test_events_are_sed_evals(pairs, edges, collars):
    reference = EventBasedMetrics(list(LABELS), evaluate_onset=edges[0], evaluate_offset=edges[1], t_collar=collars[0],
                                  percentage_of_length=collars[1], empty_system_output_handling="zero_score")
    found = figures(EventBased(evaluate_onset=edges[0], evaluate_offset=edges[1], collar=collars[0], share=collars[1]),
                    predictions(pairs))
    assert found == pytest.approx(judged(reference, pairs), abs=1e-9)


@few
@given(clips, st.sampled_from([1.0, 0.5, 0.3]))
@example([([], [])], 1.0)
def test_segments_are_sed_evals(pairs, segment):
    reference = SegmentBasedMetrics(list(LABELS), time_resolution=segment)
    reference.empty_system_output_handling = "zero_score"  # its constructor does not take it
    found = figures(SegmentBased(segment=segment), predictions(pairs))
    assert found == pytest.approx(judged(reference, [pair for pair in pairs if any(pair)]), abs=1e-9)


@few
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4))
def test_no_more_pairs_can_be_made(rows):
    able = np.array(rows)
    pairs = matched(able)
    assert len(set(pairs.values())) == len(pairs) and all(able[row, column] for row, column in pairs.items())
    most = max(sum(able[row, column] for row, column in zip(range(len(able)), order))
               for order in itertools.permutations(range(4), len(able)))
    assert len(pairs) == most


@pytest.mark.parametrize("metric", [EventBased(), SegmentBased()])
def test_pieces_are_the_whole(metric):
    pairs = [([(0, 1, 0), (2, 3, 1)], [(0.1, 1, 0)]), ([(1, 2, 0)], [(1, 2, 1), (3, 4, 2)])]
    one, other = metric.build(TASK), metric.build(TASK)
    one.update(predictions(pairs[:1]))
    other.update(predictions(pairs[1:]))
    one.merge(other)
    assert one.compute() == figures(metric, predictions(pairs))
    assert {name for name in one.compute() if "_rate_" in name and "/" not in name} == set(metric.lower)


def test_a_label_that_training_lacked_is_never_decided():
    pairs = [([(0, 1, 0), (2, 3, 1)], [(0, 1, 0), (2, 3, 1)])]
    assert figures(EventBased(), predictions(pairs))["f1_event"] == 1
    found = figures(EventBased(), predictions(pairs, trained=(0,)))
    assert found["recall_event/b"] == 0 and found["f1_event"] == pytest.approx(2 / 3) and found["deletion_rate_event"] == 0.5


def test_neither_onset_nor_offset_is_refused():
    with pytest.raises(ParameterError, match="found neither"):
        EventBased(evaluate_onset=False, evaluate_offset=False).build(TASK)


def arrays(targets, given):
    return Predictions(Task.array("x"), [f"s/{i}" for i in range(len(targets))], given, given, targets)


def test_si_sdr_is_its_formula_and_forgets_the_scale():
    rng = np.random.default_rng(0)
    targets = [rng.normal(size=(2, size)) for size in (50, 80)]
    found = [target + 0.3 * rng.normal(size=target.shape) for target in targets]
    expected = []
    for target, one in zip(targets, found):
        ratios = []
        for s, e in zip(target, one):
            cosine = (s @ e) ** 2 / ((s @ s) * (e @ e))  # the ratio is that of the angle's cosine and sine
            ratios.append(10 * np.log10(cosine / (1 - cosine)))
        expected.append(np.mean(ratios))
    for scale in (1, 7.5, -0.1):
        assert figures(SiSdr(), arrays(targets, [scale * one for one in found])) == pytest.approx({"si_sdr": np.mean(expected)})
    moved = arrays([target + 3 for target in targets], found)
    centred = arrays(*([signal - signal.mean(1, keepdims=True) for signal in signals] for signals in (targets, found)))
    assert figures(SiSdr(zero_mean=True), moved) == pytest.approx(figures(SiSdr(), centred))


def test_si_sdr_of_copies_and_silence():
    wave, silence = np.sin(np.arange(30.0))[None], np.zeros((1, 30))
    assert figures(SiSdr(limit=60.0), arrays([wave], [2 * wave])) == {"si_sdr": 60.0}
    assert figures(SiSdr(limit=60.0), arrays([wave], [silence])) == {"si_sdr": -60.0}
    assert figures(SiSdr(), arrays([silence], [wave])) == figures(SiSdr(), arrays([], [])) == {}
