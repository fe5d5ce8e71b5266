"""Every rule of the conformance kit: a good plugin keeps it, and a plugin that is bad in one way fails exactly that one."""

from __future__ import annotations

import importlib
import json
import re
import sys

import pytest
from click.testing import CliRunner

import mtcore.testing
from mtcore.cli import main
from mtcore.testing import checks_of, run_checks
from mtcore.testing.kit import RULES

METADATA = """\
Metadata-Version: 2.1
Name: mtcore-birds
Version: 0.1.0
Summary: Bird calls
License: MIT
Requires-Python: >=3.11
Requires-Dist: mtcore>=0.1,<1

A readme.
"""
ENTRY = "[mtcore]\nbirds = birds_kit.hooks\n"
HOOKS = """\
from mtcore.plugin import ExtractorSpec, PreparerSpec, ReaderSpec, hookimpl

@hookimpl
def mtcore_register_readers():
    yield ReaderSpec("calls", "birds_kit.reader:Calls", "Calls", example="birds_kit.reader:make")

@hookimpl
def mtcore_register_extractors():
    yield ExtractorSpec("energy", "birds_kit.extractor:Energy", "Energy of frames")

@hookimpl
def mtcore_register_preparers():
    yield PreparerSpec("scale", "birds_kit.preparer:Scale", "Peak of the training part becomes 1")
    yield PreparerSpec("gain", "birds_kit.preparer:Gain", "Random gain")
    yield PreparerSpec("delay", "birds_kit.preparer:Delay", "Moves everything", example="birds_kit.preparer:example")
    yield PreparerSpec("cut", "birds_kit.preparer:Cut", "Windows")
"""
READER = """\
import os
import random
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from mtcore.plugin import Clip, DataError, DatasetInfo, Event, File, Lazy, Reader, Task, param, table
from mtcore.testing import write_tone

def load(path):
    return np.ones((1, 800), np.float32), 8000.0

def make(root):
    lines = ["file\\tspecies\\tsite"]
    for number in range(6):
        write_tone(root / f"r{number}.wav", 300 + 50 * number)
        lines.append(f"r{number}.wav\\t{('owl', 'wren', 'robin')[number % 3]}\\ts{number // 2}")
    (root / "meta.tsv").write_text("\\n".join(lines))
    (root / "notes.txt").write_text("notes")

@dataclass(frozen=True, kw_only=True)
class Calls(Reader):
    info = DatasetInfo(title="Calls")
    default_group = "site"
    ignored = ("meta.tsv", "*.txt")
    least: int = param(0, help="nothing", minimum=0)

    def tasks(self, root):
        labels = sorted({row["species"] for row in table(root / "meta.tsv")})
        return [Task.multiclass("species", labels), Task.events("call", ["call"])]

    def clips(self, root):
        for number, row in enumerate(table(root / "meta.tsv")):
            path = root / row["file"]
            yield Clip(path.stem, File(path, 0.0, 0.5), {"species": row["species"], "call": [Event(0.1, 0.4, "call")]},
                       {"site": f"birds:{row['site']}"}, {"fold1": "test" if number // 2 == 0 else "train"})
        yield Clip("lazy", Lazy(load, (str(root / "meta.tsv"),), key="ones"), {"species": "owl"}, {"site": "birds:lazy"})
"""
EXTRACTOR = """\
from dataclasses import dataclass
import numpy as np
from mtcore.plugin import Axis, ClipError, Extractor, ParameterError, param

@dataclass(frozen=True, kw_only=True)
class Energy(Extractor):
    hop: float = param(0.01, help="of frames", unit="s", minimum=0.001)
    power: bool = param(True, help="squares")

    def axis(self, rate):
        hop = round(self.hop * rate)
        return Axis(hop / rate, 2 * hop / rate)

    def prepare(self, rate):
        hop = round(self.hop * rate)

        def energy(x):
            if x.shape[-1] < 4 * hop:
                raise ClipError("too short")
            frames = np.lib.stride_tricks.sliding_window_view(np.square(x) if self.power else np.abs(x), 4 * hop, axis=-1)[..., ::hop, :]
            result = frames.mean(axis=-1)[:, None]
            return result.astype(np.float32)

        return energy

    def module(self, rate):
        import torch
        hop = round(self.hop * rate)

        class Module(torch.nn.Module):
            def forward(self, x):
                return x.square().unfold(-1, 4 * hop, hop).mean(-1)[:, :, None]

        return Module()
"""
PREPARER = """\
import random
from dataclasses import dataclass
import numpy as np
from mtcore.plugin import Axis, Example, Moved, Preparer, param

def example(root):
    return Example(parameters={"seconds": 0.1})

@dataclass(frozen=True, kw_only=True)
class Scale(Preparer):
    acts_on = "feature"
    fitted = True
    share: float = param(1.0, help="of the peak", minimum=0.1)

    def prepare(self, context):
        seen = []

        def fit(arrays):
            return {"peak": np.array(self.share * max([float(np.abs(x).max()) for x in arrays]))}

        def fit_sums(sums):
            peak = max(float(np.abs(sums.maximum).max()), float(np.abs(sums.minimum).max()))
            return {"peak": np.array(self.share * peak)}

        def apply(x, state, rng):
            return (x / np.float32(state["peak"])).astype(np.float32)

        return context.then(apply, fit=fit, fit_sums=fit_sums)

@dataclass(frozen=True, kw_only=True)
class Gain(Preparer):
    random = True
    least: float = param(0.5, help="gain")

    def prepare(self, context):
        def apply(x, state, rng):
            return (x * np.float32(rng.uniform(self.least, 1))).astype(np.float32)

        def off(x, state):
            return x

        return context.then(apply, off=off)

@dataclass(frozen=True, kw_only=True)
class Delay(Preparer):
    seconds: float = param(help="by how much", unit="s")

    def prepare(self, context):
        n = round(self.seconds * context.rate)
        return context.then(lambda x, state, rng: Moved(np.pad(x, [(0, 0), (n, 0)]), by=-n / context.rate))

@dataclass(frozen=True, kw_only=True)
class Cut(Preparer):
    acts_on = "feature"
    window = True
    length: int = param(20, help="frames", minimum=1)

    def prepare(self, context):
        if context.axis is None:
            from mtcore.plugin import ParameterError
            raise ParameterError("no time")
        return context.then(lambda x, state, rng: x, shape=(*context.shape[:-1], self.length),
                            count=lambda shape, state: shape[-1] // self.length,
                            slice=lambda shape, i, state: (i * self.length, self.length))
"""
GOOD = {"METADATA": METADATA, "entry_points.txt": ENTRY, "hooks": HOOKS, "reader": READER, "extractor": EXTRACTOR, "preparer": PREPARER}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install(changes)` writes the plugin `birds` below a folder of sys.path: {file: [(what, by what it is replaced)]}."""
    for variable in ("MTCORE_BLOCK", "MTCORE_PLUGINS", "MTCORE_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)

    def write(changes=None, only=""):
        site = tmp_path / "site"
        info = site / "mtcore_birds-0.1.0.dist-info"
        info.mkdir(parents=True)
        (site / "birds_kit").mkdir()
        for name, text in GOOD.items():
            if only and name == "hooks":
                text = re.sub(rf"    yield (?!.*\"({only})\").*", "    yield from ()", text)
            for old, new in (changes or {}).get(name, ()):
                assert old in text, old
                text = text.replace(old, new)
            (info / name if name in ("METADATA", "entry_points.txt") else site / "birds_kit" / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "birds_kit"]:
        del sys.modules[name]


def failed(outcomes):
    return [outcome.id for outcome in outcomes if outcome.status == "failed"]


def test_a_good_plugin_passes_everything(install):
    install()
    outcomes = run_checks("birds")
    assert [(outcome.id, outcome.message) for outcome in outcomes if outcome.status != "passed"] == []
    assert len({outcome.id for outcome in outcomes}) == len(outcomes)
    assert [(outcome.id, outcome.message) for outcome in outcomes if outcome.message] == []


CALLS = "for number, row in enumerate(table(root / \"meta.tsv\")):"
BAD = {
    "plugin.name": {"entry_points.txt": [("birds =", "bird =")]},
    "plugin.version_bounds": {"METADATA": [(">=0.1,<1", ">=0.1")]},
    "plugin.described": {"METADATA": [("License: MIT\n", "")]},
    "plugin.light": {"hooks": [("from mtcore", "import numpy\nfrom mtcore")]},
    "plugin.plain_hooks": {"hooks": [("@hookimpl\ndef mtcore_register_readers()", "@hookimpl(tryfirst=True)\ndef mtcore_register_readers()")]},
    "plugin.known_hooks": {"hooks": [("mtcore_register_readers", "mtcore_register_reader")]},
    "plugin.specs": {"hooks": [('"gain"', '"Gain"')]},
    "plugin.targets": {"hooks": [(":Gain", ":Gone")]},
    "plugin.parameters": {"preparer": [('least: float = param(0.5, help="gain")', 'least: int = param(0.5, help="gain")')]},
    "plugin.examples": {"hooks": [(', example="birds_kit.preparer:example"', "")]},
    "reader.calls.same_order": {"reader": [(CALLS, "for number, row in sorted(enumerate(table(root / 'meta.tsv')), key=lambda pair: random.random()):"),
                                           ("\"fold1\": \"test\" if number // 2 == 0 else \"train\"", "\"given\": \"train\"")]},
    "reader.calls.same_under_hash_seeds": {"reader": [("sorted({row[\"species\"] for row in table(root / \"meta.tsv\")})",
                                                       "list({row['species'] for row in table(root / 'meta.tsv')})")]},
    "reader.calls.survives_a_spawned_process": {"reader": [("Lazy(load,", "Lazy(lambda path: load(path),")]},
    "reader.calls.unique_ids": {"reader": [("Clip(path.stem", "Clip('all'")]},
    "reader.calls.paths_exist": {"reader": [('root / row["file"]', 'root / row["file"].replace("r0", "gone")'), ('"*.txt")', '"*.txt", "r0.wav")')]},
    "reader.calls.every_file_reached": {"reader": [('ignored = ("meta.tsv", "*.txt")', 'ignored = ("meta.tsv",)')]},
    "reader.calls.times_within_file": {"reader": [("Event(0.1, 0.4", "Event(0.1, 0.7")]},
    "reader.calls.targets_declared": {"reader": [('{"species": "owl"}', '{"species": "eagle"}')]},
    "reader.calls.groups_within_parts": {"reader": [("number // 2 == 0", "number == 0")]},
    "reader.calls.group_values": {"reader": [("f\"birds:{row['site']}\"", "row['site']")]},
    "reader.calls.schemes": {"reader": [('{"fold1"', '{"fold2"')]},
    "reader.calls.missing_root": {"reader": [("    def tasks(self, root):", "    def tasks(self, root):\n        open(root / 'meta.tsv').close()")]},
    "reader.calls.root_unchanged": {"reader": [(CALLS, "(root / 'cache.txt').write_text('x')\n        " + CALLS)]},
    "reader.calls.no_network": {"reader": [(CALLS, "import socket\n        try: socket.create_connection(('127.0.0.1', 9), 0.1).close()\n"
                                                   "        except OSError: pass\n        " + CALLS)]},
    "reader.calls.metadata_only": {"reader": [("path = root / row[\"file\"]", "path = root / row['file']; import soundfile; soundfile.info(path)")]},
    "reader.calls.constant_memory": {"reader": [("path = root / row[\"file\"]", "path = root / row['file']; path.read_bytes()")]},
    "extractor.energy.shape": {"extractor": [("mean(axis=-1)[:, None]", "mean(axis=-1)[:1, None]")]},
    "extractor.energy.dtype": {"extractor": [("result.astype(np.float32)", "result.astype(np.float64)")]},
    "extractor.energy.finite": {"extractor": [("return result.astype(np.float32)",
                                               "return np.where(result > 100, np.nan, result).astype(np.float32)")]},
    "extractor.energy.deterministic": {"extractor": [("return result.astype(np.float32)",
                                                      "calls.append(1); return (result * (1 + 1e-6 * len(calls))).astype(np.float32)"),
                                                     ("        def energy", "        calls = []\n\n        def energy")]},
    "extractor.energy.survives_a_spawned_process": {"extractor": [("    def axis(self", "    def __reduce__(self):\n        raise TypeError('no')\n\n    def axis(self")]},
    "extractor.energy.silence": {"extractor": [("result = frames.mean(axis=-1)[:, None]", "result = frames.mean(axis=-1)[:, None]\n"
                                                "            result = result if result.any() else result + np.inf")]},
    "extractor.energy.too_short": {"extractor": [('raise ClipError("too short")', "raise IndexError('short')")]},
    "extractor.energy.input_untouched": {"extractor": [("            frames = ", "            before = x.copy(); x *= 0.5; x[...] = before; x[..., -1] = 0\n            frames = ")]},
    "extractor.energy.module_equals": {"extractor": [("x.square()", "x.abs()")]},
    "extractor.energy.time_axis": {"extractor": [("2 * hop / rate)", "0.0)")]},
    "extractor.energy.parameters_change_the_key": {"extractor": [("    def axis(self", "    def parameters(self):\n        return {'hop': self.hop}\n\n    def axis(self")]},
    "preparer.scale.parameters_change_the_key": {"preparer": [("    share: float", "    def parameters(self):\n        return {}\n\n    share: float")]},
    "preparer.gain.shape": {"preparer": [("context.then(apply, off=off)", "context.then(apply, off=lambda x, state: x[:, :-1], shape=(context.shape[0], 16000)) "
                                          "if context.shape[0] == 2 else context.then(apply, off=off)")]},
    "preparer.gain.finite": {"preparer": [("return (x * np.float32(rng.uniform(self.least, 1)))",
                                           "return (x * np.float32(rng.uniform(self.least, 1)) / (1 if x.any() else np.nan))")]},
    "preparer.gain.pure": {"preparer": [("return (x * np.float32(rng", "x[..., -1] = 0; return (x * np.float32(rng")]},
    "preparer.scale.fits_on_training_only": {"preparer": [("return (x / np", "seen.append(x); return (x / np"),
                                                          ("for x in arrays]))}", "for x in [*arrays, *seen]]))}")]},
    "preparer.scale.fits_in_any_order": {"preparer": [("max([float(np.abs(x).max()) for x in arrays])", "[float(np.abs(x).max()) for x in arrays][0]"),
                                                      ("fit_sums=fit_sums", "fit_sums=None")]},
    "preparer.scale.fit_sums_equals": {"preparer": [("self.share * peak)", "peak * 2)")]},
    "preparer.scale.state_without_pickle": {"preparer": [('{"peak": np.array(self.share * max(', '{"peak": np.float64(self.share * max(')]},
    "preparer.gain.draws_from_its_stream": {"preparer": [("rng.uniform(self.least, 1)", "np.random.uniform(self.least, 1)")]},
    "preparer.delay.time_is_true": {"preparer": [("by=-n / context.rate", "by=n / context.rate")]},
    "preparer.cut.windows": {"preparer": [("shape[-1] // self.length", "1 + shape[-1] // self.length")]},
}


SMALL = "energy|gain|scale|delay|cut"
"""Enough components where the fault lies in the plugin."""


@pytest.mark.parametrize("check", BAD)
def test_a_bad_plugin_fails_exactly_one_check(install, check):
    install(BAD[check], only=SMALL if check.startswith("plugin.") else check.split(".")[1])
    assert failed(run_checks("birds")) == [check]


MORE = {
    "plugin.version_bounds": [{"METADATA": [("Requires-Dist: mtcore>=0.1,<1\n", "")]}, {"METADATA": [(">=0.1,<1", ">=99,<100")]}],
    "plugin.described": [{"METADATA": [("Summary: Bird calls\n", "")]}, {"METADATA": [("Version: 0.1.0", "Version: first")]}],
    "plugin.light": [{"hooks": [("from mtcore", "import no_such_module\nfrom mtcore")]}, {"hooks": [("from mtcore", "import sys; sys.exit(1)\nfrom mtcore")]}],
    "plugin.plain_hooks": [{"hooks": [("mtcore_register_readers()", "mtcore_register_readers(config=None)")]},
                           {"hooks": [("@hookimpl\ndef mtcore_register_extractors", "@hookimpl(wrapper=True)\ndef mtcore_register_extractors")]}],
    "plugin.known_hooks": [{"hooks": [("@hookimpl\ndef mtcore_register_readers", "def mtcore_register_readers")]}],
    "plugin.specs": [{"hooks": [('yield PreparerSpec("gain"', 'yield PreparerSpec("scale"')]}, {"hooks": [("yield ExtractorSpec", "1 / 0; yield ExtractorSpec")]}],
    "plugin.targets": [{"hooks": [("birds_kit.preparer:Gain", "birds_kit.reader:Calls")]}, {"extractor": [("def prepare(", "def prepared(")]},
                       {"extractor": [("@dataclass", "1 / 0\n@dataclass")]}],
    "plugin.parameters": [{"preparer": [("@dataclass(frozen=True, kw_only=True)\nclass Gain", "@dataclass(kw_only=True)\nclass Gain")]},
                          {"preparer": [("least: float = param(0.5", "id: float = param(0.5"), ("self.least", "self.id")]}],
    "plugin.examples": [{"hooks": [(', example="birds_kit.reader:make"', "")]}, {"reader": [("def make(root):", "def make(root):\n    1 / 0")]},
                        {"preparer": [('"seconds": 0.1', '"second": 0.1')]}],
}


@pytest.mark.parametrize("check, changes", [(check, changes) for check, every in MORE.items() for changes in every])
def test_other_ways_to_be_bad(install, check, changes):
    install(changes, only="" if "calls" in str(changes) or "reader" in str(changes) else SMALL)
    assert failed(run_checks("birds")) == [check]


def test_every_rule_has_a_bad_component():
    checks_of("core")  # rules are registered by then
    rules = {(kind, rule.name) for kind, known in RULES.items() for rule in known}
    assert {(check.split(".")[0], check.split(".")[-1]) for check in BAD} == rules
    assert all(rule.text for known in RULES.values() for rule in known)


def test_a_blocked_plugin_is_not_imported(install, monkeypatch):
    install({"hooks": [("from mtcore", "1 / 0\nfrom mtcore")]})
    monkeypatch.setenv("MTCORE_BLOCK", "birds")
    assert failed(run_checks("birds")) == ["plugin.name"] and "birds_kit.hooks" not in sys.modules


def test_parametrized_checks_are_strict(install, pytester):
    install(BAD["reader.calls.unique_ids"], only="calls")
    source = """
        from mtcore.testing import parametrize_checks

        @parametrize_checks("birds", expected_failures={EXPECTED})
        def test_conformance(check):
            check()
    """
    pytester.makepyfile(test_declared=source.replace("EXPECTED", '"reader.calls.unique_ids": "one id for all"'))
    pytester.runpytest_inprocess("-q", "test_declared.py").assert_outcomes(passed=len(checks_of("birds")) - 1, xfailed=1)
    pytester.makepyfile(test_undeclared=source.replace("EXPECTED", ""))
    pytester.runpytest_inprocess("-q", "test_undeclared.py").assert_outcomes(passed=len(checks_of("birds")) - 1, failed=1)
    pytester.makepyfile(test_passes=source.replace("EXPECTED", '"reader.calls.unique_ids": "x", "reader.calls.schemes": "it does not fail"'))
    pytester.runpytest_inprocess("-q", "test_passes.py").assert_outcomes(passed=len(checks_of("birds")) - 2, xfailed=1, failed=1)
    pytester.makepyfile(test_unknown=source.replace("EXPECTED", '"reader.calls.unique": "no such check"'))
    result = pytester.runpytest_inprocess("-q", "test_unknown.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no check 'reader.calls.unique'*did you mean reader.calls.unique_ids?*"])


def test_the_command(install):
    install()
    result = CliRunner().invoke(main, ["check-plugin", "mtcore-birds"])
    assert result.exit_code == 0 and "passed      reader.calls.unique_ids" in result.output and "checks passed" in result.output


def test_the_command_names_what_failed_and_what_was_expected(install):
    install(BAD["reader.calls.group_values"])
    result = CliRunner().invoke(main, ["check-plugin", "birds"])
    assert result.exit_code == 3
    assert "failed      reader.calls.group_values: clip r0: expected site as \"source:value\", found 's0'" in result.output
    assert "expected: Values of groups carry their source" in result.output
    assert "birds fails 1 of" in result.output


def test_the_command_as_json(install):
    install(BAD["plugin.described"])
    result = CliRunner().invoke(main, ["check-plugin", "birds", "--json"])
    assert result.exit_code == 3
    outcomes = {outcome["id"]: outcome for outcome in json.loads(result.stdout)}
    assert outcomes["plugin.described"]["status"] == "failed" and "license" in outcomes["plugin.described"]["message"]


def test_an_unknown_plugin_is_an_error_of_the_call():
    result = CliRunner().invoke(main, ["check-plugin", "cor"])
    assert result.exit_code == 2 and "did you mean core?" in result.output


@mtcore.testing.parametrize_checks("core")
def test_the_core_keeps_its_own_rules(check):
    check()
