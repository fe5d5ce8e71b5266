"""Names to components: finding, importing, parameters, steps."""

from __future__ import annotations

import importlib
import json
import math
import sys
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcore.errors import ExperimentError, ParameterError, PluginError, TrainingError, UnknownComponent
from mtcore.plugin import Batch, Named, Step, Task
from mtcore.plugin.registry import Registry, get_registry, resolve_target

HOOKS = """
    from mtcore.plugin import ExtractorSpec, HeadSpec, LossSpec, PreparerSpec, ReaderSpec, TrunkSpec, hookimpl

    @hookimpl
    def mtcore_register_trunks():
        yield TrunkSpec("nest", "birds_fake_parts:Nest", "A nest", revision=3)
        yield TrunkSpec("bare", "birds_fake_parts:Bare")
        yield TrunkSpec("missing", "birds_fake_parts:Nset")
        yield TrunkSpec("unimportable", "birds_fake_nothing:Nest")
        yield TrunkSpec("abstract", "birds_fake_parts:Abstract")
        yield TrunkSpec("loose", "birds_fake_parts:Loose")
        yield TrunkSpec("thawed", "birds_fake_parts:Thawed")
        yield TrunkSpec("reserved", "birds_fake_parts:Reserved")
        yield TrunkSpec("unresolved", "birds_fake_parts:Unresolved")
        yield TrunkSpec("mlp", "birds_fake_parts:Nest")

    @hookimpl
    def mtcore_register_preparers():
        yield PreparerSpec("chirp", "birds_fake_parts:Chirp")
        yield PreparerSpec("wrong", "birds_fake_parts:Nest")

    @hookimpl
    def mtcore_register_extractors():
        yield ExtractorSpec("tweet", "birds_fake_parts:Tweet")
        yield ExtractorSpec("chirp", "birds_fake_parts:Tweet")
"""

PARTS = """
    from __future__ import annotations
    from dataclasses import dataclass
    from typing import Literal
    from mtcore.plugin import Extractor, ParameterError, Preparer, Trunk, param

    @dataclass(frozen=True, kw_only=True)
    class Nest(Trunk):
        hidden: list[int] = param([4, 4], help="widths", minimum=1)
        rate: float | None = param(None, help="rate", unit="Hz", minimum=1, maximum=1e6)
        form: str = param("round", help="form", choices=("round", "square"))
        side: Literal["left", "right"] = "left"
        span: tuple[float, float] = (0.0, 1.0)
        labels: dict[str, int] = param({}, help="numbers")
        deep: bool = False

        def __post_init__(self):
            if self.span[0] > self.span[1]:
                raise ParameterError(f"span: expected rising numbers, found {self.span}")
            if self.form == "square" and self.deep:
                raise KeyError("careless")

        def build(self, shapes):
            return None

    @dataclass(frozen=True, kw_only=True)
    class Chirp(Preparer):
        rate: int = param(help="rate", unit="Hz")
        def prepare(self, context):
            return context.then(lambda x, state, rng: x)

    class Tweet(Extractor):
        def prepare(self, rate):
            return lambda x: x
        def axis(self, rate):
            return None

    class Bare(Trunk):
        def build(self, shapes):
            return None

    class Abstract(Trunk):
        pass

    class Loose(Bare):
        width: int = param(3, help="width")

    @dataclass
    class Thawed(Bare):
        width: int = 3

    @dataclass(frozen=True, kw_only=True)
    class Reserved(Bare):
        p: float = 0.5

    @dataclass(frozen=True, kw_only=True)
    class Unresolved(Bare):
        width: NoSuchType = 3
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Plugins birds (well), cats (broken) and both claimants of dogs; what is imported from them is forgotten afterwards."""
    site = tmp_path_factory.mktemp("site")

    def distribution(name, entry, source):
        module = f"{name.replace('-', '_')}_fake"
        info = site / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[mtcore]\n{entry} = {module}\n")
        info.rename(site / f"{name.replace('-', '_')}-1.5.dist-info")
        (site / f"{module}.py").write_text(textwrap.dedent(source))

    distribution("mtcore-birds", "birds", HOOKS)
    distribution("mtcore-cats", "cats", "import no_such_package")
    distribution("mtcore-dogs", "dogs", "")
    distribution("dogs", "dogs", "")
    (site / "birds_fake_parts.py").write_text(textwrap.dedent(PARTS))
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("MTCORE_BLOCK", "MTCORE_PLUGINS", "MTCORE_STRICT_PLUGINS"):
            patch.delenv(variable, raising=False)
        patch.syspath_prepend(str(site))
        yield site
    for name in [name for name in sys.modules if "_fake" in name]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def registry(site):
    return Registry()


def nest(registry, **parameters):
    return registry.make("trunk", {"use": "nest", **parameters}, "model.trunk")


def test_short_and_full_names_find_the_same(registry):
    assert registry.find("trunk", "nest") == registry.find("trunk", "birds.nest")
    assert registry.find("trunk", "nest")[0] == "birds.nest"


def test_specs_are_those_of_well_plugins_by_kind(registry):
    assert {full.partition(".")[0] for full, _ in registry.specs()} >= {"core", "birds"}
    assert all(spec.kind == "trunk" for _, spec in registry.specs("trunk")) and registry.specs("trunk")
    with pytest.raises(ExperimentError, match="did you mean trunk"):
        registry.specs("trunc")


def test_ambiguous_short_name_lists_the_full_ones(registry):
    with pytest.raises(ExperimentError, match=r"core\.mlp, birds\.mlp"):
        registry.find("trunk", "mlp")
    assert registry.find("trunk", "birds.mlp")[1].target == "birds_fake_parts:Nest"
    with pytest.raises(ExperimentError, match=r"preparer:birds\.chirp, extractor:birds\.chirp"):
        registry.find(None, "chirp")


@pytest.mark.parametrize("kind, name, part", [
    ("trunk", "nset", "did you mean nest"), ("trunk", "birds.nset", "did you mean birds.nest"),
    ("reader", "frogs.calls", "pip install mtcore-frogs"),
    ("trunk", "bird.nest", "did you mean birds"), ("head", "nest", "birds.nest is a trunk"), ("trunk", "zzz", "cats (broken)"),
    ("trunk", "zzz", "mtcore list trunk")])
def test_unknown_names_get_a_hint(registry, kind, name, part):
    with pytest.raises(UnknownComponent) as caught:
        registry.find(kind, name)
    assert part in str(caught.value) and caught.value.exit_code == 2


def test_a_plugin_that_is_not_well_is_an_error_when_used(registry):
    with pytest.raises(PluginError) as caught:
        registry.make("reader", "cats.meow", "datasets.a.reader")
    message = str(caught.value)
    assert message.startswith("datasets.a.reader: ") and caught.value.exit_code == 3
    for part in ("plugin cats", "mtcore-cats 1.5", "broken", "no_such_package", "mtcore list-plugins --causes cats"):
        assert part in message
    with pytest.raises(PluginError, match="(?s)distribution dogs .*conflict.*distribution mtcore-dogs"):
        registry.find("reader", "dogs.bark")
    with pytest.raises(PluginError, match="blocked"):
        Registry(block=["birds"]).find("trunk", "birds.nest")


def test_strict_refuses_plugins_that_are_not_well(site, monkeypatch):
    monkeypatch.setenv("MTCORE_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="(?s)cats.*broken.*dogs.*conflict"):
        Registry().specs()
    assert Registry(block=["cats", "dogs"]).specs()


def test_the_default_registry_is_one():
    assert get_registry() is get_registry()


@pytest.mark.parametrize("kind, name, part", [
    ("trunk", "missing", "did you mean Nest"), ("trunk", "unimportable", "ModuleNotFoundError"),
    ("trunk", "abstract", "does not define build"),
    ("preparer", "wrong", "expected a subclass of mtcore.plugin.Preparer"), ("trunk", "loose", "frozen=True"),
    ("trunk", "thawed", "frozen=True"), ("trunk", "reserved", "'p'"), ("trunk", "unresolved", "NoSuchType")])
def test_components_at_fault(registry, kind, name, part):
    with pytest.raises(PluginError) as caught:
        registry.make(kind, name, "here")
    message = str(caught.value)
    assert message.startswith("here: ") and part in message and f"birds.{name}" in message
    assert "mtcore-birds 1.5" in message and "mtcore info" in message


def test_make_gives_full_name_revision_and_json(registry):
    named = nest(registry, hidden=[8])
    assert isinstance(named, Named) and (named.name, named.revision) == ("birds.nest", 3)
    assert json.loads(json.dumps(named.described())) == {
        "use": "birds.nest", "revision": 3, "hidden": [8], "rate": None, "form": "round", "side": "left", "span": [0.0, 1.0],
        "labels": {}, "deep": False}
    assert registry.make("trunk", "bare").component.parameters() == {}
    assert registry.make("trunk", named) is named


def test_whole_numbers_are_floats_and_lists_become_tuples(registry):
    component = nest(registry, rate=8000, span=[0, 20]).component
    assert (component.rate, component.span) == (8000.0, (0.0, 20.0)) and isinstance(component.rate, float)


WRONG = [
    ({"hiden": [1]}, "model.trunk.hiden: ", "did you mean hidden?"),
    ({"zzz": 1}, "model.trunk.zzz: ", "it takes hidden, rate"),
    ({"p": 0.5}, "model.trunk.p: ", "no parameter"),
    ({"hidden": ["512"]}, "model.trunk.hidden[0]: ", "expected int, found str"),
    ({"hidden": 5}, "model.trunk.hidden: ", "expected list, found int"),
    ({"hidden": [4, 0]}, "model.trunk.hidden[1]: ", "expected 1 or more; found 0"),
    ({"hidden": [True]}, "model.trunk.hidden[0]: ", "expected int, found bool"),
    ({"rate": "8k"}, "model.trunk.rate: ", "expected float or None, found str"),
    ({"rate": 2e6}, "model.trunk.rate: ", "expected 1 or more and 1e+06 or less Hz"),
    ({"rate": math.nan}, "model.trunk.rate: ", "found nan"),
    ({"span": [0, math.inf]}, "model.trunk.span[1]: ", "expected a finite number; found inf"),
    ({"span": [math.nan, 1]}, "model.trunk.span[0]: ", "expected a finite number; found nan"),
    ({"form": "squre"}, "model.trunk.form: ", "did you mean square?"),
    ({"side": "rihgt"}, "model.trunk.side: ", "did you mean right?"),
    ({"span": [1, 2, 3]}, "model.trunk.span: ", "length 2"),
    ({"span": [2, 1]}, "model.trunk: ", "span: expected rising numbers"),
    ({"labels": {"a": "x"}}, "model.trunk.labels", "expected int, found str"),
    ({"deep": 1}, "model.trunk.deep: ", "expected bool, found int"),
    ({"deep": True, "form": "square"}, "model.trunk: ", "KeyError"),
]


@pytest.mark.parametrize("parameters, path, part", WRONG)
def test_wrong_parameters_name_the_key(registry, parameters, path, part):
    with pytest.raises(ExperimentError) as caught:
        nest(registry, **parameters)
    assert str(caught.value).startswith(path) and part in str(caught.value)


def test_errors_of_the_component_keep_their_type(registry):
    with pytest.raises(ParameterError):
        nest(registry, span=[2, 1])


def test_a_missing_parameter_is_named_with_type_and_help(registry):
    with pytest.raises(ExperimentError, match=r"^signal\.steps\[0\]\.rate: missing; birds\.chirp needs it, int: rate$"):
        registry.make_step("birds.chirp", "signal.steps[0]")


@pytest.mark.parametrize("value", [None, 5, "", {}, {"rate": 3}, {"use": 3}, ["nest"]])
def test_neither_name_nor_table(registry, value):
    with pytest.raises(ExperimentError, match='^model.trunk: expected a trunk, "name" or {use = "name", …}; found '):
        registry.make("trunk", value, "model.trunk")


@settings(max_examples=30, deadline=None)
@given(hidden=st.lists(st.integers(1, 10**6), max_size=5), rate=st.none() | st.floats(1, 1e6), deep=st.booleans(),
       span=st.tuples(st.floats(0, 1), st.floats(1, 2)))
def test_what_is_described_makes_an_equal_component(registry, hidden, rate, deep, span):
    first = nest(registry, hidden=hidden, rate=rate, deep=deep, span=list(span))
    described = json.loads(json.dumps(first.described()))
    assert described.pop("revision") == first.revision
    assert registry.make("trunk", described) == first


def test_the_given_table_is_left_as_it_is(registry):
    value = {"use": "birds.chirp", "rate": 5, "p": 0.5}
    registry.make_step(value)
    assert value == {"use": "birds.chirp", "rate": 5, "p": 0.5}


def test_step_keys(registry):
    keys = {"id": "second", "p": 1, "parts": ["train", "test"], "fit": "dataset"}
    step = registry.make_step({"use": "birds.chirp", "rate": 5, **keys})
    assert isinstance(step, Step) and step.component.rate == 5
    assert (step.id, step.p, step.parts, step.fit) == ("second", 1, ("train", "test"), "dataset")
    plain = registry.make_step({"use": "birds.chirp", "rate": 5})
    assert (plain.id, plain.p, plain.parts, plain.fit) == ("chirp", 1.0, None, "shared")
    assert registry.make_step(plain) is plain


@pytest.mark.parametrize("key, value", [
    ("p", 0), ("p", 1.5), ("p", "half"), ("p", True), ("p", math.nan), ("id", ""), ("id", 3), ("id", "a.b"), ("fit", "each"),
    ("parts", "train"), ("parts", []), ("parts", ["training"]), ("parts", ["train", "train"]), ("parts", [["train"]])])
def test_wrong_step_keys(registry, key, value):
    with pytest.raises(ExperimentError, match=rf"^signal\.steps\[2\]\.{key}: expected "):
        registry.make_step({"use": "birds.chirp", "rate": 5, key: value}, "signal.steps[2]")


def test_extractors_know_id_only(registry):
    assert registry.make_step({"use": "tweet", "id": "x"}, kinds=("extractor",)).id == "x"
    for key, value in (("p", 0.5), ("parts", ["train"]), ("fit", "shared")):
        with pytest.raises(ExperimentError, match=rf"^inputs\.main\.extractor\.{key}: an extractor"):
            registry.make_step({"use": "tweet", key: value}, "inputs.main.extractor", kinds=("extractor",))


def test_a_step_of_one_of_several_kinds(registry):
    assert registry.make_step("tweet", kinds=("preparer", "extractor")).component.kind == "extractor"
    with pytest.raises(ExperimentError, match="more than one preparer or extractor"):
        registry.make_step("chirp", kinds=("preparer", "extractor"))


def test_built_components_are_named_by_their_class(registry):
    component = nest(registry).component
    named = registry.make("trunk", component)
    assert (named.name, named.component) == ("birds_fake_parts:Nest", component)
    chirp = registry.load("preparer", "birds.chirp")(rate=3)
    assert registry.make_step(chirp).id == "Chirp"
    with pytest.raises(ExperimentError, match="^model.head: expected a head"):
        registry.make("head", component, "model.head")


OWN = """
    from dataclasses import dataclass
    from mtcore.plugin import Trunk

    @dataclass(frozen=True, kw_only=True)
    class Own(Trunk):
        width: int = 3
        def build(self, shapes):
            return None
"""


def test_import_paths_beside_the_experiment(registry, tmp_path):
    (tmp_path / "own_fake.py").write_text(textwrap.dedent(OWN))
    before = list(sys.path)
    named = registry.make("trunk", {"use": "own_fake:Own", "width": 5}, search=tmp_path)
    assert (named.name, named.component.width, named.revision) == ("own_fake:Own", 5, 1) and sys.path == before
    with pytest.raises(ExperimentError, match="^x.widht: .*did you mean width"):
        registry.make("trunk", {"use": "own_fake:Own", "widht": 5}, "x", search=tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "own_fake.py").write_text(textwrap.dedent(OWN))
    with pytest.raises(ExperimentError, match="rename own_fake.py"):
        registry.make("trunk", "own_fake:Own", search=other)


@pytest.mark.parametrize("kind, name, part", [
    ("trunk", "no_such_module:X", "ModuleNotFoundError"), ("trunk", "json:decoder", "expected a subclass"),
    ("head", "birds_fake_parts:Nest", "Head"),
    ("trunk", "birds_fake_parts:Nets", "did you mean Nest"),
    ("trunk", "torch.nn:Linear", "Trunk"), ("loss", "torch.nn:Linear", 'reduction="none"')])
def test_wrong_import_paths_are_errors_of_the_experiment(registry, kind, name, part):
    with pytest.raises(ExperimentError) as caught:
        registry.make(kind, name, "key")
    assert str(caught.value).startswith("key: ") and part in str(caught.value)


def test_modules_as_losses_give_a_value_per_row(registry):
    torch.manual_seed(0)
    output, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    named = registry.make("loss", {"use": "torch.nn:CrossEntropyLoss", "label_smoothing": 0.1, "weight": [1.0, 2.0, 3.0]})
    rows = named.component.build(None, None)(output, target, None)
    expected = torch.nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1, reduction="none")(output, target)
    assert torch.equal(rows, expected)
    assert json.dumps(named.described())
    values = torch.randn(5, 3, 7)
    rows = registry.make("loss", "torch.nn:MSELoss").component.build(None, None)(values, torch.zeros(5, 3, 7), None)
    assert torch.allclose(rows, values.square().mean((1, 2)))


@pytest.mark.parametrize("kind, module, shape, target", [
    ("binary", "BCEWithLogitsLoss", (4,), torch.tensor([0.0, 1, 1, 0])),
    ("binary", "SoftMarginLoss", (4,), torch.tensor([0.0, 1, 1, 0])),
    ("multiclass", "MultiMarginLoss", (4, 3), torch.tensor([0, 2, 1, 1])),
    ("multilabel", "BCEWithLogitsLoss", (4, 3), torch.ones(4, 3)),
    ("multilabel", "MultiLabelSoftMarginLoss", (4, 3), torch.ones(4, 3)), ("regression", "SmoothL1Loss", (4,), torch.arange(4.0)),
    ("events", "BCEWithLogitsLoss", (4, 3, 5), torch.ones(4, 3, 5)), ("array", "L1Loss", (4, 2, 6), torch.ones(4, 2, 6))])
def test_modules_as_losses_serve_each_kind(registry, kind, module, shape, target):
    torch.manual_seed(0)
    task = Task("t", kind, {"binary": "ab", "regression": "", "array": ""}.get(kind, "abc"))
    output = torch.randn(shape, requires_grad=True)
    rows = registry.make("loss", f"torch.nn:{module}").component.build(task, None)(output, target, Batch({}, {}, {}, []))
    assert rows.shape == (4,)
    torch.testing.assert_close(rows.mean(), getattr(torch.nn, module)()(output, target))
    rows.sum().backward()
    assert output.grad.any()


def test_modules_as_losses_of_events_leave_out_padding_and_follow_the_stride(registry):
    torch.manual_seed(0)
    output, target = torch.randn(2, 3, 4), (torch.rand(2, 3, 8) < 0.4).float()
    batch = Batch({}, {}, {"e": slice(1, 3)}, [], {"main": torch.tensor([8, 8, 3])})
    loss = registry.make("loss", "torch.nn:BCEWithLogitsLoss").component.build(Task.events("e", "abc"), None)
    pooled = torch.nn.functional.max_pool1d(target, 2)
    expected = [torch.nn.BCEWithLogitsLoss()(output[i, :, :n], pooled[i, :, :n]) for i, n in enumerate((4, 2))]
    torch.testing.assert_close(loss(output, target, batch), torch.stack(expected))


@pytest.mark.parametrize("module, task, output, target", [
    ("MSELoss", Task.regression("r"), torch.zeros(4, 1), torch.zeros(4)),
    ("MSELoss", Task.regression("r"), torch.zeros(3), torch.zeros(4)),
    ("TripletMarginLoss", Task.regression("r"), torch.zeros(4), torch.zeros(4)),
    ("MSELoss", Task.none("r"), torch.zeros(4), None),
    ("CrossEntropyLoss", Task.multiclass("r", "ab"), torch.zeros(4, 2), torch.full((4,), 2))])
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_modules_as_losses_name_the_task_where_shapes_do_not_fit(registry, module, task, output, target):
    loss = registry.make("loss", f"torch.nn:{module}").component.build(task, None)
    with pytest.raises(TrainingError, match=rf"task r: the loss torch.nn:{module} cannot compare .*\({len(output)},"):
        loss(output, target, Batch({}, {}, {}, []))


@pytest.mark.parametrize("arguments, part", [
    ({"label_smoothin": 1}, "did you mean label_smoothing"), ({"reduction": "mean"}, "unknown argument"),
    ({"weight": "a"}, "refuses")])
def test_wrong_arguments_of_module_losses(registry, arguments, part):
    with pytest.raises(ExperimentError, match="^tasks.a.loss: .*" + part):
        registry.make("loss", {"use": "torch.nn:CrossEntropyLoss", **arguments}, "tasks.a.loss")


def test_targets_are_resolved_with_the_cause(tmp_path):
    assert resolve_target("json.decoder:JSONDecoder.decode") is json.JSONDecoder.decode
    (tmp_path / "leaves_fake.py").write_text("raise SystemExit(3)")
    importlib.invalidate_caches()
    with pytest.raises(PluginError, match="SystemExit") as caught:
        resolve_target("leaves_fake:x", tmp_path)
    assert isinstance(caught.value.__cause__, SystemExit)
