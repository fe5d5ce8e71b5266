"""What the TensorBoard reporter writes, read back by TensorBoard; and reporters that fail."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from mtcore.builtin.tensorboard import TensorBoard, confusion_picture, cosine_picture
from mtcore.plugin import Predictions, Reporting, Task
from mtcore.reporting.fanout import Reporters

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of tensorboard and protobuf as they are imported
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

RUN = {"epoch": 0, "fold": 2, "seed": 7, "variation": {"tasks": "mood+size"}, "best_epoch": 2,
       "tasks": {"mood": {"metric": "recall_macro"}, "size": {"metric": "mae"}},
       "primary": {"mood": "recall_macro", "size": "mae", "noise": "f1_macro"}}
MOOD = Predictions(Task.multiclass("mood", ("happy", "грустный", "怒り")), ["a/1", "a/2", "a/3"], np.eye(3), np.array([0, 1, 1]),
                   np.array([0, 1, 2]))
SIZE = Predictions(Task.regression("size"), ["a/1"], np.ones(1), np.ones(1), np.ones(1))


def epochs(reporting, *numbers, loss=1.0):
    for epoch in numbers:
        reporting.epoch_ended(epoch, {"train": {"mood": {"loss": loss / epoch}}, "validation": {"mood": {"recall/happy": 0.5}}},
                              {"validation": {"mood": MOOD, "size": SIZE}})


def read(folder):
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def scalars(found, tag):
    events = found.Scalars(tag)
    assert len({event.step for event in events}) == len(events) or "test" in tag
    return {event.step: event.value for event in events}


def test_scalars_pictures_and_final_figures_can_be_read_back(tmp_path):
    reporting = TensorBoard(pictures=2).build(tmp_path)
    reporting.run_started(RUN)
    epochs(reporting, 1, 2, 3)
    reporting.epoch_ended(2, {"test": {"mood": {"recall_macro": 0.75, "loss": 3.0}}}, {"test": {"mood": MOOD, "size": SIZE}})
    reporting.run_ended(RUN)
    found = read(tmp_path)
    assert scalars(found, "train/mood/loss") == pytest.approx({1: 1, 2: 1 / 2, 3: 1 / 3})
    assert scalars(found, "validation/mood/recall/happy") == {1: 0.5, 2: 0.5, 3: 0.5}
    assert scalars(found, "test/mood/recall_macro") == {2: 0.75}
    assert set(found.Tags()["images"]) == {"validation/mood/confusion", "test/mood/confusion"}
    assert [image.step for image in found.Images("validation/mood/confusion")] == [2]
    [image] = found.Images("test/mood/confusion")
    expected = confusion_picture(np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]]), MOOD.task.labels)
    assert (np.asarray(Image.open(io.BytesIO(image.encoded_image_string))) == expected).all()


def test_the_run_stands_in_the_table_of_hyperparameters(tmp_path):
    reporting = TensorBoard().build(tmp_path)
    reporting.run_started(RUN)
    reporting.epoch_ended(2, {"test": {"mood": {"recall_macro": 0.75}}}, {})
    reporting.run_ended(RUN)
    parts = read(tmp_path).summary_metadata
    plain = plugin_data_pb2.HParamsPluginData.FromString(parts["_hparams_/session_start_info"].plugin_data.content)
    varied = plain.session_start_info.hparams
    assert {name: value.string_value for name, value in varied.items()} == {"fold": "2", "seed": "7", "tasks": "mood+size"}
    experiment = plugin_data_pb2.HParamsPluginData.FromString(parts["_hparams_/experiment"].plugin_data.content).experiment
    assert [info.name.tag for info in experiment.metric_infos] == ["test/mood/recall_macro", "test/size/mae", "test/noise/f1_macro"]


def test_opposed_gradients_are_red():
    pictures = [cosine_picture({("a", "b"): cosine, ("b", "a"): cosine}, ("a", "b")).astype(int) for cosine in (-0.57, 0.57)]
    assert [(picture[..., 0] - picture[..., 2] > 50).any() for picture in pictures] == [True, False]


def test_a_continued_run_shows_each_epoch_once(tmp_path):
    """The first process finished epoch 2 and was killed in the middle of 3, after its figures."""
    first = TensorBoard().build(tmp_path)
    first.run_started(RUN)
    epochs(first, 1, 2, 3)
    first.writer.close()
    again = TensorBoard().build(tmp_path)
    again.run_started({**RUN, "epoch": 2})
    epochs(again, 3, 4, loss=30.0)
    again.run_ended(RUN)
    assert scalars(read(tmp_path), "train/mood/loss") == pytest.approx({1: 1, 2: 1 / 2, 3: 10, 4: 7.5})


def test_the_darker_a_cell_the_larger_its_share_of_the_row():
    """Many labels: a picture of cells alone."""
    counts = np.eye(100, dtype=int) * 5
    counts[3] = 0
    counts[4, :2] = (10, 5)
    cells = confusion_picture(counts, [f"class {i}" for i in range(100)])[5::10, 5::10].astype(int).sum(axis=2)
    assert cells.shape == counts.shape
    assert (cells[3] == 3 * 255).all()  # an empty row is white, not an error
    assert cells[4, 0] < cells[4, 4] == cells[4, 1] < cells[4, 2]
    assert cells[0, 0] < cells[4, 0]


@pytest.mark.parametrize("labels", [("no", "yes"), ("x" * 100, "y"), ("мир", "和平"), ("\U0001f600", "a\nb")])
def test_any_label_names_are_drawn(labels):
    picture, dots = (confusion_picture(np.array([[50, 1], [0, 3]]), names) for names in (labels, (".", "..")))
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and max(picture.shape) < 600
    assert (picture < 64).sum() > (dots < 64).sum() + 20


class Failing(Reporting):
    def epoch_ended(self, epoch, figures, predictions):
        raise OSError("disk full")


class Remembering(Reporting):
    def __init__(self):
        self.calls = []

    def run_started(self, run):
        self.calls.append("started")

    def epoch_ended(self, epoch, figures, predictions):
        self.calls.append(epoch)

    def run_ended(self, run):
        self.calls.append("ended")


def test_a_reporter_that_fails_is_disabled_with_one_line_and_the_others_go_on():
    lines, other = [], Remembering()
    reporters = Reporters({"birds.web": Failing(), "core.other": other}, lines.append)
    reporters.run_started({})
    for epoch in (1, 2):
        reporters.epoch_ended(epoch, {}, {})
    reporters.run_ended({})
    assert other.calls == ["started", 1, 2, "ended"]
    [line] = lines
    assert "birds.web" in line and "OSError: disk full" in line


def test_an_interrupt_is_no_failure_of_a_reporter():
    class Interrupted(Reporting):
        def run_started(self, run):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Reporters({"a.b": Interrupted()}, print).run_started({})
