"""PSDS of what is known, and against the library called by hand."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from mtcore_metrics.events import SCENARIOS, Psds

from mtcore.plugin import Predictions, Task

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of dcase_util, on which the library rests
    from sed_scores_eval.intersection_based import psds

TASK, HOP = Task.events("e", ("hum", "beep", "never")), 0.5


def predictions(scores, events, first=HOP / 2):
    return Predictions(TASK, [f"s/{i}" for i in range(len(scores))], scores, None, events, hop=HOP, first=first)


def figures(found, **parameters):
    measure = Psds(**parameters).build(TASK)
    measure.update(found)
    return measure.compute()


def world(seed=0, gain=0.5, clips=6, frames=200):
    """Events on frames' edges; scores that know them, and a little noise."""
    rng = np.random.default_rng(seed)
    events, scores = [], []
    for _ in range(clips):
        score, some = 0.7 * rng.random((3, frames)), []
        for label in (0, 1):
            start = int(rng.integers(0, frames - 8))
            some.append((HOP * start, HOP * (start + 8), label))
            score[label, start:start + 8] += gain
        events.append(some)
        scores.append(score)
    return scores, events


@pytest.mark.parametrize("scenario", [1, 2])
def test_what_is_known(scenario):
    scores, events = world()
    perfect = [np.zeros_like(score) for score in scores]
    for score, some in zip(perfect, events):
        for onset, offset, label in some:
            score[label, int(onset / HOP):int(offset / HOP)] = 1
    name = f"psds_{scenario}"
    found = figures(predictions(perfect, events), scenario=scenario)
    assert found == pytest.approx({name: 1, f"{name}/hum": 1, f"{name}/beep": 1})
    assert figures(predictions([1 - score for score in perfect], events), scenario=scenario)[name] == pytest.approx(0)


def test_exact_times_are_harder_and_labels_shall_be_alike():
    found = figures(predictions(*world()))
    assert 0 < found["psds_1"] < (found["psds_1/hum"] + found["psds_1/beep"]) / 2
    assert found["psds_1"] < figures(predictions(*world()), scenario=2)["psds_2"]


def test_a_single_tested_label():
    scores, events = world()
    for scenario in (1, 2):
        found = figures(predictions(scores, [some[:1] for some in events]), scenario=scenario)
        assert set(found) == {f"psds_{scenario}", f"psds_{scenario}/hum"} and all(map(np.isfinite, found.values()))
    assert figures(predictions(scores, [[] for _ in events])) == {}


@pytest.mark.parametrize("scenario", [1, 2])
@pytest.mark.parametrize("first", [0.0, HOP / 2])
def test_the_library_by_hand_in_any_partition(scenario, first):
    scores, events = world(1, gain=0.1 if scenario == 2 else 0.5)
    edges = np.maximum(first + HOP * (np.arange(201) - 0.5), 0)
    frames = {f"s/{i}": pd.DataFrame({"onset": edges[:-1], "offset": edges[1:], "beep": one[1], "hum": one[0]})
              for i, one in enumerate(scores)}
    truth = {f"s/{i}": [(on, off, ("hum", "beep")[label]) for on, off, label in some] for i, some in enumerate(events)}
    lengths = {clip: max(edges[-1], *(off for _, off, _ in some)) for clip, some in truth.items()}
    expected, each, *_ = psds(frames, truth, lengths, max_efpr=100.0, **SCENARIOS[scenario])
    found = figures(predictions(scores, events, first), scenario=scenario)
    name = f"psds_{scenario}"
    assert 0 < expected < 1
    assert found == pytest.approx({name: expected, f"{name}/hum": each["hum"], f"{name}/beep": each["beep"]})
    here, there = (Psds(scenario=scenario).build(TASK) for _ in range(2))
    whole = predictions(scores, events, first)
    for measure, rows in ((here, [4, 1]), (there, [0, 5, 2, 3])):
        clips, some, true = ([column[i] for i in rows] for column in (whole.clips, scores, events))
        measure.update(Predictions(TASK, clips, some, None, true, hop=HOP, first=first))
    here.merge(pickle.loads(pickle.dumps(there)))
    assert here.compute() == pytest.approx(found)


def test_overlapping_events_of_a_label_are_one():
    scores, events = world(2)
    cut = [[piece for on, off, label in some for piece in ((on, off - 1, label), (on + 1, off, label))] for some in events]
    assert figures(predictions(scores, cut)) == figures(predictions(scores, events))
