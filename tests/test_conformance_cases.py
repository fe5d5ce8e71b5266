"""Further ways to be bad that the conformance kit finds, and what is odd but right, which it lets pass."""

from __future__ import annotations

import re
import sys

import pytest
from click.testing import CliRunner

from mtcore.cli import main
from mtcore.testing import run_checks


@pytest.fixture(autouse=True)
def fewer_processes(request, monkeypatch):
    """Two hash seeds are enough where they are not what is tried."""
    if "hash_seeds" not in request.node.name:
        monkeypatch.setattr("mtcore.testing.readers.SEEDS", (1, 2))


def failed(outcomes):
    return [outcome.id for outcome in outcomes if outcome.status == "failed"]


SMALL = "energy|gain|scale|delay|cut"
"""Enough components where the fault lies in the plugin."""
MORE = {
    "plugin.version_bounds": [{"METADATA": [("Requires-Dist: mtcore>=0.1,<1\n", "")]}, {"METADATA": [(">=0.1,<1", ">=99,<100")]}],
    "plugin.described": [{"METADATA": [("Summary: Bird calls\n", "")]}, {"METADATA": [("Version: 0.1.0", "Version: first")]}],
    "plugin.light": [{"hooks": [("from mtcore", "import no_such_module\nfrom mtcore")]},
                     {"hooks": [("from mtcore", "import sys; sys.exit(1)\nfrom mtcore")]}],
    "plugin.leaves_no_trace": [{"hooks": [("from mtcore", "import random; random.seed(0)\nfrom mtcore")]},
                               {"hooks": [("yield ExtractorSpec", "print('hello'); yield ExtractorSpec")]}],
    "plugin.plain_hooks": [{"hooks": [("mtcore_register_readers()", "mtcore_register_readers(config=None)")]},
                           {"hooks": [("@hookimpl\ndef mtcore_register_extractors",
                                       "@hookimpl(wrapper=True)\ndef mtcore_register_extractors")]}],
    "plugin.known_hooks": [{"hooks": [("@hookimpl\ndef mtcore_register_readers", "def mtcore_register_readers")]}],
    "plugin.specs": [{"hooks": [('yield PreparerSpec("gain"', 'yield PreparerSpec("scale"')]},
                     {"hooks": [("yield ExtractorSpec", "1 / 0; yield ExtractorSpec")]}],
    "plugin.targets": [{"hooks": [("birds_kit.preparer:Gain", "birds_kit.reader:Calls")]},
                       {"extractor": [("def prepare(", "def prepared(")]},
                       {"extractor": [("@dataclass", "1 / 0\n@dataclass")]}],
    "plugin.parameters": [{"preparer": [("@dataclass(frozen=True, kw_only=True)\nclass Gain",
                                         "@dataclass(kw_only=True)\nclass Gain")]},
                          {"preparer": [("least: float = param(0.5", "id: float = param(0.5"), ("self.least", "self.id")]},
                          {"preparer": [('least: float = param(0.5, help="gain")', 'least: Path = param(Path("a"), help="gain")'),
                                         ("import random\n", "import random\nfrom pathlib import Path\n"),
                                        ("self.least, 1", "0.5, 1")]}],
    "plugin.examples": [{"hooks": [(', example="birds_kit.reader:make"', "")]},
                        {"reader": [("def make(root):", "def make(root):\n    1 / 0")]},
                        {"preparer": [('"seconds": 0.1', '"second": 0.1')]}, {"preparer": [("return Example(", "return dict(")]},
                        {"preparer": [("n = round(", "raise ParameterError('no'); n = round("),
                                      ("Preparer, param", "ParameterError, Preparer, param")]},
                        {"extractor": [("def energy(x):", "def energy(x):\n            raise ClipError('no')")]}],
    "reader.calls.same_elsewhere": [{"reader": [("Clip(path.stem", "Clip(str(path)")]},
                                    {"reader": [("Clip(path.stem", "Clip(os.getcwd() + path.stem")]}],
    "reader.calls.targets_declared": [{"reader": [('Task.events("call", ["call"])',
                                                   'Task.events("call", ["call"]), Task.array("grid", (2, None))'),
                                                  ('"call": [', '"grid": np.zeros((3, 4)), "call": [')]}],
    "reader.calls.paths_exist": [{"reader": [('Task.events("call", ["call"])',
                                              'Task.events("call", ["call"]), Task.array("grid")'),
                                             ('"call": [', '"grid": File(root / "gone.npy"), "call": [')]}],
    "extractor.energy.deterministic": [
        {"extractor": [("        def energy(x):", "        import functools\n\n        def energy(x):"),
                       ("return result.astype(np.float32)",
                        "return KNOWN.setdefault((x.shape, self.power, hop), result.astype(np.float32))"),
                       ("    def module", "    def unused"), ("@dataclass", "KNOWN = {}\n\n@dataclass")]},
        {"extractor": [("return result.astype(np.float32)", "return known.setdefault(id(x), (x, result.astype(np.float32)))[1]"),
                       ("        def energy", "        known = {}\n\n        def energy"),
                       ("    def module", "    def unused")]}],
    "preparer.gain.pure": [{"preparer": [
        ("            return (x * np.float32(rng.uniform(self.least, 1))).astype(np.float32)",
         "            key, result = (x.shape, rng.uniform()), x * np.float32(rng.uniform(self.least, 1))\n"
         "            return known.setdefault(key, result)"),
        ("        def apply(x, state, rng):\n            return (x * np.float32(rng",
         "        known = {}\n\n        def apply(x, state, rng):\n            return (x * np.float32(rng")][::-1]}],
}


@pytest.mark.parametrize("check, changes", [(check, changes) for check, every in MORE.items() for changes in every])
def test_other_ways_to_be_bad(birds, check, changes):
    birds(changes, only=check.split(".")[1] if not check.startswith("plugin.") else "" if "reader" in str(changes) else SMALL)
    assert failed(run_checks("birds")) == [check]


ODD = {
    "sound of one channel only, in frames of 2.4 s": ("energy", {"extractor": [
        ("if x.shape[-1] < 4 * hop:", "if x.shape[-1] < 4 * hop or len(x) > 1:"), ("param(0.01", "param(0.6")]}),
    "two channels only, no sound too loud, nothing where it is silent": ("energy", {"extractor": [
        ("if x.shape[-1] < 4 * hop:", "if x.shape[-1] < 4 * hop or len(x) != 2 or np.abs(x).max() > 30 or not x.any():")]}),
    "a hop of no whole number of samples": ("energy", {"extractor": [
        ("hop = round(self.hop * rate)\n        return Axis(hop / rate, 2 * hop / rate)", "return Axis(self.hop, 2 * self.hop)"),
        ("param(0.01", "param(0.010007")]}),
    "clicks that no frame shows": ("energy", {"extractor": [
        ("result = frames.mean(axis=-1)[:, None]", "result = (np.abs(np.median(frames, axis=-1)[:, None]) > 0.01) * x.std()"),
        ("    def module", "    def unused")]}),
    "an effect that is rare": ("gain", {"preparer": [("rng.uniform(self.least, 1)",
                                                      "1 if rng.random() < 0.99 else rng.uniform(self.least, 1)")]}),
    "features of 2 s at least": ("scale", {"preparer": [
        ("        def apply(x, state, rng):\n            return (x / np",
         "        def apply(x, state, rng):\n            if x.shape[-1] < 200:\n"
         "                from mtcore.plugin import ClipError; raise ClipError('short')\n            return (x / np")]}),
    "windows of 3 s": ("cut", {"preparer": [
        ("param(20,", "param(300,"), ("count=lambda shape, state: shape[-1] // self.length", "count=self.count"),
        ("    def prepare(self, context):\n        if context.axis",
         "    def count(self, shape, state):\n        from mtcore.plugin import ClipError\n"
         "        if shape[-1] < self.length:\n            raise ClipError('short')\n        return shape[-1] // self.length\n\n"
         "    def prepare(self, context):\n        if context.axis")]}),
    "a long average": ("scale", {"preparer": [
        ("return (x / np.float32(state[\"peak\"])).astype(np.float32)",
         "means = lambda row: np.convolve(row, np.ones(31) / 31, 'same')\n"
         "            return np.apply_along_axis(means, -1, x).astype(np.float32) if x.ndim == 3 else x")]}),
    "empty recordings left out, thousands of events, nested arguments, a set of labels": ("calls", {"reader": [
        ('path = root / row["file"]',
         'path = root / row["file"]\n            if not path.stat().st_size:\n                continue'),
        ("[Event(0.1, 0.4, \"call\")]", "[Event(i / 1e5, 0.4, \"call\") for i in range(4000)]"),
        ("def load(path):", "def load(paths):"), ('(str(root / "meta.tsv"),)', '({"table": [str(root / "meta.tsv")]},)'),
        ('ignored = ("meta.tsv", "*.txt")', 'ignored = ("*.txt",)'),
        ('least: int = param(0, help="nothing", minimum=0)',
         'sites: set[str] = param({"s0"}, help="nothing")\n    table: str = param(help="nothing")'),
        ("    (root / \"notes.txt\").write_text(\"notes\")", "    (root / \"notes.txt\").write_text(\"notes\")\n"
         "    return Example(parameters={'sites': {'s1'}, 'table': 'meta.tsv'})"),
         ("DatasetInfo, Event", "DatasetInfo, Event, Example")]}),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_and_right_passes(birds, odd):
    component, changes = ODD[odd]
    birds(changes, only=component)
    assert [(outcome.id, outcome.message) for outcome in run_checks("birds") if outcome.status != "passed"] == []


def test_without_the_library_of_an_extra_nothing_fails(birds):
    """What could not be checked is told, with the command that helps."""
    birds({"METADATA": [("Requires-Dist: mtcore",
                         'Provides-Extra: whales\nRequires-Dist: whale-song; extra == "whales"\nRequires-Dist: mtcore')],
             "extractor": [("    def prepare(self, rate):", "    def prepare(self, rate):\n        import whale_song")]},
          only="energy|gain")
    result = CliRunner().invoke(main, ["check-plugin", "birds"])
    assert result.exit_code == 0, result.output
    assert re.search(r"not reached extractor\.energy\.\w+: it needs a library that is not installed", result.output)
    assert "not reached extractor.energy.shape: as extractor.energy." in result.output
    assert 'pip install "mtcore-birds[whales]"' in result.output
    assert re.search(r"birds: \d+ of \d+ checks passed, \d+ not reached", result.output)


def test_a_blocked_plugin_is_not_imported(birds, monkeypatch):
    birds({"hooks": [("from mtcore", "1 / 0\nfrom mtcore")]})
    monkeypatch.setenv("MTCORE_BLOCK", "birds")
    assert failed(run_checks("birds")) == ["plugin.name"] and "birds_kit.hooks" not in sys.modules
