"""What a component is: one base class per kind. Light: torch and numpy appear in annotations only.

Every component is a frozen keyword-only dataclass whose fields are its parameters (`param`). It holds no state: what holds
state is an ordinary object that `prepare` or `build` makes.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..clip import Clip
from ..task import Task

if TYPE_CHECKING:  # heavy, and needed by no listing
    import numpy as np
    import torch
    from torch import Tensor, nn


__all__ = ["Axis", "Balancer", "Balancing", "Batch", "Component", "Context", "DatasetInfo", "Download", "Extractor", "Head", "Loss", "Measure",
           "Metric", "Moved", "Named", "Output", "Predictions", "Prepared", "Preparer", "Reader", "Reporter", "Reporting", "Representation",
           "RepresentationShape", "SamplerIndex", "Sampler", "Statistics", "Step", "Sums", "Trainer", "Trunk"]


class Component(ABC):
    """Root of all kinds. `kind` is the kind's name as in `mtcore list KIND`."""

    kind: ClassVar[str] = ""

    def parameters(self) -> dict[str, Any]:
        """All parameters by name, defaults included."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} if dataclasses.is_dataclass(self) else {}


def source_digest(thing: Any) -> str:
    """Digest of the source of the module that defines `thing`; "" where there is none to read."""
    try:
        return blake2b(inspect.getsource(inspect.getmodule(thing)).encode(), digest_size=8).hexdigest()
    except (OSError, TypeError):
        return ""


@dataclass(frozen=True)
class Named:
    """A component with its full name and revision: what stores' keys and saved files hold."""

    name: str
    component: Any
    revision: int = 1

    def described(self) -> dict[str, Any]:
        """Name, all parameters and revision, as JSON takes them. A component by import path has no revision of its own: the digest of
        its module's source stands for it."""
        values = self.component.parameters().items()
        found = {"use": self.name, "revision": self.revision, **{k: v.described() if isinstance(v, Named) else v for k, v in values}}
        if ":" in self.name:
            found["source"] = source_digest(type(self.component))
        return found


@dataclass(frozen=True)
class Step(Named):
    """A preparer (or the extractor) in a chain, with the keys that every step knows.

    id     how `[vary]`, `--set` and random streams address it; default: the component's short name
    p      probability of being applied to a clip; below 1 makes the step random
    parts  parts it acts on; None: training only for random steps, all for others
    fit    "shared": fitted over the training clips of all datasets of the run; "dataset": of each dataset by itself
    """

    id: str = ""
    p: float = 1.0
    parts: tuple[str, ...] | None = None
    fit: str = "shared"

    @property
    def fitted(self) -> bool:
        return bool(getattr(self.component, "fitted", False))

    @property
    def window(self) -> bool:
        return bool(getattr(self.component, "window", False))

    @property
    def random(self) -> bool:
        return bool(getattr(self.component, "random", False)) or self.p < 1

    def acts_in(self, part: str) -> bool:
        """Whether the step is applied to clips of this part (else its `off` form is)."""
        return part in (self.parts if self.parts is not None else (("train",) if self.random else (part,)))


# Reading --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Download:
    """A file to fetch: `digest` is "md5:…" or "sha256:…", `size` in bytes."""

    url: str
    digest: str = ""
    size: int | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """What a person wants to know of a dataset. `layout` says what must lie below the root, in a few lines."""

    title: str
    licence: str = ""
    homepage: str = ""
    downloads: tuple[Download, ...] = ()
    layout: str = ""
    citation: str = ""


class Reader(Component):
    """Knows one dataset's layout on disk: declares tasks, yields clips. Reads metadata only, never decodes.

    default_group  name of the group that holds a split together unless the experiment says otherwise; None: clips are independent
    ignored        glob patterns (relative to the root) of files of the layout that are no clips
    generated      the data lie nowhere, so that any root will do
    """

    kind = "reader"
    info: ClassVar[DatasetInfo | None] = None
    default_group: ClassVar[str | None] = None
    ignored: ClassVar[tuple[str, ...]] = ()
    generated: ClassVar[bool] = False

    @abstractmethod
    def tasks(self, root: Path) -> Sequence[Task]:
        """The tasks; labels may depend on what lies below `root`, their order must always be the same."""

    @abstractmethod
    def clips(self, root: Path) -> Iterable[Clip]:
        """All clips, in an order that is always the same."""


# Extracting and preparing ---------------------------------------------------------------------------------------------


class Axis(NamedTuple):
    """The time axis of a feature array, which is its last one: hop and time of the first frame's centre, in seconds."""

    hop: float
    first: float = 0.0


class Moved(NamedTuple):
    """Returned by `apply` instead of a bare array when a step moves time: what was at t seconds is at (t - by) * speed
    afterwards (a cut that drops the first 0.5 s: by=0.5). Events and windows follow."""

    array: Any
    by: float = 0.0
    speed: float = 1.0


class Sums(NamedTuple):
    """Sums of stored arrays with a time axis, a row per clip; each but `count` has the shape [clips, *array.shape[:-1]]."""

    count: np.ndarray
    """[clips] frames"""
    sum: np.ndarray
    squares: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray


@dataclass(frozen=True)
class Context:
    """What a step meets: `rate` in Hz for signals (or None), `axis` for features (or None), and the shape of the arrays, with
    None where it differs from clip to clip. The last dimension is time wherever there is a rate or an axis. `materials` by name
    have `draw(rng)`; steps on batches get the run's `tasks` and no shape."""

    shape: tuple[int | None, ...]
    rate: float | None = None
    axis: Axis | None = None
    materials: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def then(self, apply: Callable, **changes: Any) -> Prepared:
        """A `Prepared` that keeps this context's rate, axis and shape except for `changes`."""
        return Prepared(apply, **{"shape": self.shape, "rate": self.rate, "axis": self.axis, **changes})


@dataclass(frozen=True)
class Prepared:
    """What a preparer became for one rate or axis and shape. Callables take and give one numpy array.

    apply(x, state, rng)   array (or `Moved`); must not change `x`. `state` is what fit gave (an empty dict without fit), `rng` a
                           numpy Generator for random steps, else None
    shape                  of the result: a tuple with None where it differs from clip to clip, or a callable(state) giving one
    rate, axis             of the result
    fit(arrays)            fitted steps: an iterator over the training arrays -> dict of numpy arrays
    fit_sums(sums)         optional, equal to `fit`, from `Sums`; None where sums do not suffice
    off(x, state)          random steps: the deterministic form used for fitting and outside `parts`; None: identity
    inverse(x, state)      optional
    count(shape, state)    the step `window` alone: number of windows in an array of this shape
    slice(shape, i, state) the step `window` alone: (first frame, frames) of window i
    """

    apply: Callable[..., Any]
    shape: Any
    rate: float | None = None
    axis: Axis | None = None
    fit: Callable[[Iterator[np.ndarray]], dict[str, np.ndarray]] | None = None
    fit_sums: Callable[[Sums], dict[str, np.ndarray] | None] | None = None
    off: Callable[..., Any] | None = None
    inverse: Callable[..., Any] | None = None
    count: Callable[..., int] | None = None
    slice: Callable[..., tuple[int, int]] | None = None


class Preparer(Component):
    """One step of a chain. `acts_on` is "signal", "feature" or "batch"; `fitted` steps learn from the training part, `random`
    ones draw. `window` marks the one step that cuts a clip into several windows."""

    kind = "preparer"
    acts_on: ClassVar[str | tuple[str, ...]] = "signal"
    fitted: ClassVar[bool] = False
    random: ClassVar[bool] = False
    window: ClassVar[bool] = False
    batched: ClassVar[bool] = False
    """`apply` keeps shape and axis and takes `out`, too: memory of x's shape for the result, which may be x's own. Then rows come from the
    store through it straight into a batch"""

    @abstractmethod
    def prepare(self, context: Context) -> Prepared:
        """Check the parameters against rate or axis and shape (`ParameterError`), precompute, and give what runs per array."""


class Extractor(Component):
    """Samples to features; deterministic and without fitted state, so that the result can be stored.

    Sound comes as float32 [channels, n]; the result is float32 [channels, bins, frames] or [channels, values].
    """

    kind = "extractor"

    @abstractmethod
    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        """Check the parameters against `rate` in Hz (`ParameterError`), precompute, and give the function of one array. That raises
        `ClipError` for a clip it cannot take (too short)."""

    @abstractmethod
    def axis(self, rate: float | None) -> Axis | None:
        """The result's time axis; None where there is none."""

    def module(self, rate: float | None) -> nn.Module:
        """Optional: the same on batches, on a device; equal to the callable."""
        raise NotImplementedError


# Batches and models ---------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """Rows of several datasets and tasks.

    inputs   by input: float32 [batch, *shape]
    targets  by task: len(rows[task]) entries. binary and regression float [n], multiclass long [n], multilabel float [n, labels],
             events float [n, labels, frames] (1 where active, frames of the first input with a time axis), array float [n, *shape], NaN
             behind the end of shorter ones, none [n, 0]
    rows     by task: indices (long tensor) of the rows that have the task, or a slice where they are neighbours
    clips    "dataset/clip id" per row
    lengths  by input: frames per row before padding; None: nothing is padded
    teachers  by teacher and task: its raw outputs, float [batch, …]
    place    which of its epoch's: what random choices are keyed by
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    rows: dict[str, Any]
    clips: list[str]
    lengths: dict[str, Tensor] | None = None
    teachers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    place: tuple[int, ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        move = lambda values: {key: value.to(device) for key, value in values.items()}  # noqa: E731
        return dataclasses.replace(self, inputs=move(self.inputs), targets=move(self.targets),
                                   lengths=None if self.lengths is None else move(self.lengths),
                                   teachers={name: move(tasks) for name, tasks in self.teachers.items()})


class Representation(NamedTuple):
    """What a trunk hands over: `vector` [batch, values]; `frames` [batch, values, frames] or None; `stride`: input frames per
    representation frame; `lengths` [batch]: frames per row before padding, None where nothing is padded."""

    vector: Tensor
    frames: Tensor | None = None
    stride: int = 1
    lengths: Tensor | None = None


class RepresentationShape(NamedTuple):
    """Sizes of a `Representation` without the batch: values of the vector, values per frame or None, stride."""

    vector: int
    frames: int | None = None
    stride: int = 1


@dataclass
class Output:
    """What a model gives: by task one tensor with len(rows[task]) rows (all rows where `rows` is None); `costs` are further losses."""

    tasks: dict[str, Tensor]
    representation: Any = None
    costs: dict[str, Tensor] = field(default_factory=dict)


class Trunk(Component):
    """A shared network."""

    kind = "trunk"
    per_task: ClassVar[bool] = False
    """It has a representation for each task: `build(shapes, tasks)` also gets the names, forward gives {task: Representation}.
    `mtcore.plugin.module_dict` holds a module for each, whatever they are called."""

    @abstractmethod
    def build(self, shapes: Mapping[str, tuple[int | None, ...]]) -> nn.Module:
        """`shapes`: by input, the shape of one row (without the batch). The module's forward takes (inputs: dict of tensors,
        lengths: dict or None) and gives a `Representation`. Raise `ParameterError` for shapes it cannot take.

        The module may have `costs()`, called after each forward in training: further losses by name, scalars. A module that is a sequence
        offers `begin(inputs, lengths) -> (x, length)`, `stages`, each (x, length) -> (x, length), and `end(x, length)`: schemes that mix
        networks at each stage need them."""


class Head(Component):
    """The part of the network that belongs to one task, and what its output means."""

    kind = "head"
    kinds: ClassVar[tuple[str, ...]] = ()
    """task kinds it serves"""

    @abstractmethod
    def build(self, task: Task, shape: RepresentationShape) -> nn.Module:
        """The module's forward takes a `Representation` of the rows that have the task and gives the raw output that the loss takes:
        multiclass [n, labels], binary [n], multilabel [n, labels], regression [n], events [n, labels, frames], array [n, *shape], where
        frames may be more than the target's, none whatever its loss takes."""

    def scores(self, task: Task, output: Tensor) -> Tensor:
        """What can be averaged over a clip's windows: probabilities of the same shape, or values. Default: as it is."""
        return output

    @abstractmethod
    def decide(self, task: Task, scores: np.ndarray) -> Any:
        """From scores of n clips: index [n] (binary, multiclass), 0/1 [n, labels] (multilabel), values [n] (regression); of events:
        a list of n lists of (onset frame, offset frame, label index), from a list of n arrays [labels, frames]; array: such a list."""

    def tuned(self, task: Task, predictions: Predictions) -> Head:
        """The head with what the validation part's predictions teach (thresholds), for validation and test. Default: as it is."""
        return self


@dataclass(frozen=True)
class Statistics:
    """Of one task in the training part: `rows`; `counts` per label, [labels] or None; `mean` and `deviation` of regression targets."""

    rows: int
    counts: Any = None
    mean: float = 0.0
    deviation: float = 1.0


class Loss(Component):
    """The loss of one task, a value per row."""

    kind = "loss"
    kinds: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, task: Task, statistics: Statistics) -> Callable[[Tensor, Any, Batch], Tensor]:
        """A callable (or module) `rows(output, target, batch)` -> [rows that have the task]; the loop takes the mean."""


class Balancer(Component):
    """How all tasks' losses or gradients become one update."""

    kind = "balancer"

    @abstractmethod
    def build(self, weights: Mapping[str, float]) -> Balancing:
        """`weights`: by task, the experiment's `weight`."""


class Balancing:
    """State of a balancer in one run; override what is needed. The loop owns scaling, accumulation, clipping and updates."""

    batches_per_update: int = 1
    """Independent batches that one update needs: the loop draws so many times `accumulate` micro-batches, fewer at an epoch's end.
    The i-th micro-batch of an update belongs to batch i mod `batches_per_update`."""
    rank: int = 0
    """of this process; the i-th micro-batch of an update belongs to process i mod `processes`"""
    processes: int = 1
    """that train together, each with its own micro-batches; then the loop adds up all gradients over them after the last `backward`"""
    reduced: bool = False
    """gradients of the shared parameters are added up already, from values that went through `reduce`"""
    gradient_scale: float = 1.0
    """Within the network, between its outputs and parameters, gradients are so many times themselves: loss scaling of float16"""

    @staticmethod
    def reduce(values: Tensor) -> Tensor:
        """The sum over all processes, which must all call it; the loop replaces it where there are several."""
        return values

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor], representation: Any, rows: Mapping[str, Any],
                 last: bool = True) -> None:
        """Add to `.grad`. Called once per micro-batch; each loss is the sum over the micro-batch's rows divided by the number of
        rows of the whole update, so that the micro-batches' losses add up to the update's mean. `losses` holds only the tasks that
        the micro-batch has: none in a process that has no micro-batch of an update, where others have. `last`: whether it is the
        update's last one; what is combined once per update is combined then. Random choices take torch's global generator, which the
        loop seeds before each update: nothing random is part of the state."""
        raise NotImplementedError

    def parameters(self) -> Iterable[Tensor]:
        """Learnable weights, handed to the optimizer."""
        return ()

    def after_update(self, closure: Callable[[], Mapping[str, Tensor]]) -> None:
        """After each update; `closure()` gives the update's losses anew, without gradients, with the same random choices."""

    def epoch_ended(self, means: Mapping[str, float]) -> None:
        """With the epoch's mean training loss per task."""

    def figures(self) -> dict[str, float]:
        """By task, the weight that its loss or gradient has had; logged after each epoch."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


@dataclass(frozen=True)
class SamplerIndex:
    """The training rows as arrays: `dataset`, `group` (integers) and `length` (frames) per row; `labels[task]`: label index per
    row, -1 where it has none or several. `seed` keys what goes on over epochs."""

    dataset: np.ndarray
    group: np.ndarray
    length: np.ndarray
    labels: Mapping[str, np.ndarray]
    datasets: tuple[str, ...] = ()
    seed: int = 0


class Sampler(Component):
    """Which rows make up the next batch."""

    kind = "sampler"

    @abstractmethod
    def build(self, index: SamplerIndex, batch_size: int) -> Callable[[int, np.random.Generator], Iterator[list[int]]]:
        """A function `batches(epoch, rng)` -> iterator of lists of row numbers. Its place is (epoch, batches consumed): the same epoch
        and a generator in the same state give the same batches."""


# Reporting ------------------------------------------------------------------------------------------------------------


@dataclass
class Predictions:
    """Of one task and part, per clip.

    clips    "dataset/clip id"
    scores   [clips, …]: probabilities or values in the target's own unit (events: a list of [labels, frames]; array: a list)
    decided  what `Head.decide` made of them
    targets  encoded truths: index [clips], 0/1 [clips, labels], values [clips]; events: a list of lists (onset s, offset s, index);
             array: a list
    hop      events: seconds per frame, and `first`: time of the first frame
    trained  indices of the labels that the training part holds; None: all
    moved    events, before they are stored: per clip (by, speed), what was at t seconds of the clip is at (t - by) * speed of the scores
    """

    task: Task
    clips: list[str]
    scores: Any
    decided: Any
    targets: Any
    hop: float = 0.0
    first: float = 0.0
    trained: tuple[int, ...] | None = None
    moved: Any = None


class Metric(Component):
    """Figures of one task. `primary` names the figure that stands for the metric in tables and stop rules."""

    kind = "metric"
    kinds: ClassVar[tuple[str, ...]] = ()
    primary: ClassVar[str] = ""
    lower: ClassVar[tuple[str, ...]] = ()
    """figures (without "/label") that are better when lower"""

    @property
    def higher_is_better(self) -> bool:
        return self.primary not in self.lower

    @abstractmethod
    def build(self, task: Task) -> Measure:
        """State that gathers predictions."""


class Measure:
    """State of a metric: `update` as often as there are predictions, then `compute`."""

    def update(self, predictions: Predictions) -> None:
        raise NotImplementedError

    def merge(self, other: Measure) -> None:
        """Add what another measure (of another process) gathered."""
        raise NotImplementedError

    def compute(self) -> dict[str, float]:
        """Figures by name; per label as "name/label". What is undefined is left out."""
        raise NotImplementedError


class Reporter(Component):
    """Writes figures somewhere, below the run folder unless configured otherwise. One that fails is disabled with one warning."""

    kind = "reporter"

    @abstractmethod
    def build(self, folder: Path) -> Reporting:
        """State for one run; `folder` is the run's folder."""


class Reporting:
    """State of a reporter in one run; override what is needed. Figures are {part: {task: {name: value}}}; predictions
    {part: {task: Predictions}}."""

    def run_started(self, run: Mapping[str, Any]) -> None:
        """`run` is the content of run.json; `run["epoch"]` is the last finished epoch when a run is continued."""

    def epoch_ended(self, epoch: int, figures: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """After each epoch, and once more for the test part with the epoch it belongs to."""

    def run_ended(self, run: Mapping[str, Any]) -> None:
        pass


class Trainer(Component):
    """A training paradigm."""

    kind = "trainer"

    @abstractmethod
    def build(self) -> Any:
        """An object with `run(model, data, folder: RunFolder, setup)` and, optionally, `check(model, data, setup)`, which
        `mtcore check` calls: it raises what `run` would raise at once. See `mtcore.training.gradient`.

        One that writes no checkpoints/NAME.pt, the network's weights, but a file of another ending has
        `restore(path, tasks, heads, trust)`: of this file a module that predicts and, by task, heads that make scores of its
        outputs. Code that the run's folder names is imported if `trust` only."""

    def length(self) -> int | None:
        """The number of epochs where the parameters say it; `train.epochs` is left out or equal then."""
        return None
