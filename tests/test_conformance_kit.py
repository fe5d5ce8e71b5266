"""Every rule of the conformance kit: a good plugin keeps it, and a plugin that is bad in one way fails exactly that one."""

from __future__ import annotations

import pytest

import mtcore.testing
from mtcore.testing import run_checks
from mtcore.testing.kit import RULES


@pytest.fixture(autouse=True)
def fewer_processes(request, monkeypatch):
    """Two hash seeds are enough where they are not what is tried."""
    if "hash_seeds" not in request.node.name:
        monkeypatch.setattr("mtcore.testing.readers.SEEDS", (1, 2))


def failed(outcomes):
    return [outcome.id for outcome in outcomes if outcome.status == "failed"]


def test_a_good_plugin_passes_everything(birds):
    birds()
    outcomes = run_checks("birds")
    assert [(outcome.id, outcome.message) for outcome in outcomes if outcome.status != "passed"] == []
    assert len({outcome.id for outcome in outcomes}) == len(outcomes)
    assert [(outcome.id, outcome.message) for outcome in outcomes if outcome.message] == []


BUFFER = ("held = memory.__dict__.setdefault(str(x.shape), np.empty_like(RESULT)); held[...] = RESULT; return held")
"""Each thread has memory of its own, and every result lies in it."""
SCRATCH = "held = scratch.setdefault(x.shape, np.empty_like(x)); held[...] = x; x = held"
"""All threads write to the same memory."""
CALLS = "for number, row in enumerate(table(root / \"meta.tsv\")):"
BAD = {
    "plugin.name": {"entry_points.txt": [("birds =", "bird =")]},
    "plugin.version_bounds": {"METADATA": [(">=0.1,<1", ">=0.1")]},
    "plugin.described": {"METADATA": [("License: MIT\n", "")]},
    "plugin.light": {"hooks": [("from mtcore", "import numpy\nfrom mtcore")]},
    "plugin.leaves_no_trace": {"hooks": [("from mtcore", "import warnings; warnings.simplefilter('ignore')\nfrom mtcore")]},
    "plugin.plain_hooks": {"hooks": [("@hookimpl\ndef mtcore_register_readers()",
                                      "@hookimpl(tryfirst=True)\ndef mtcore_register_readers()")]},
    "plugin.known_hooks": {"hooks": [("mtcore_register_readers", "mtcore_register_reader")]},
    "plugin.specs": {"hooks": [('"gain"', '"Gain"')]},
    "plugin.targets": {"hooks": [(":Gain", ":Gone")]},
    "plugin.parameters": {"preparer": [('least: float = param(0.5, help="gain")', 'least: int = param(0.5, help="gain")')]},
    "plugin.examples": {"hooks": [(', example="birds_kit.preparer:example"', "")]},
    "reader.calls.same_order": {"reader": [
        (CALLS, "rows = enumerate(table(root / 'meta.tsv'))\n"
                "        for number, row in sorted(rows, key=lambda pair: random.random()):"),
        ("\"fold1\": \"test\" if number // 2 == 0 else \"train\"", "\"given\": \"train\"")]},
    "reader.calls.same_under_hash_seeds": {"reader": [("sorted({row[\"species\"] for row in table(root / \"meta.tsv\")})",
                                                       "list({row['species'] for row in table(root / 'meta.tsv')})")]},
    "reader.calls.survives_a_spawned_process": {"reader": [("Lazy(load,", "Lazy(lambda path: load(path),")]},
    "reader.calls.unique_ids": {"reader": [("Clip(path.stem", "Clip('all'")]},
    "reader.calls.paths_exist": {"reader": [('root / row["file"]', 'root / row["file"].replace("r0", "gone")'),
                                            ('"*.txt")', '"*.txt", "r0.wav")')]},
    "reader.calls.every_file_reached": {"reader": [('ignored = ("meta.tsv", "*.txt")', 'ignored = ("meta.tsv",)')]},
    "reader.calls.times_within_file": {"reader": [("Event(0.1, 0.4", "Event(0.1, 0.7")]},
    "reader.calls.targets_declared": {"reader": [('{"species": "owl"}', '{"species": "eagle"}')]},
    "reader.calls.groups_within_parts": {"reader": [("number // 2 == 0", "number == 0")]},
    "reader.calls.group_values": {"reader": [("f\"birds:{row['site']}\"", "row['site']")]},
    "reader.calls.schemes": {"reader": [('{"fold1"', '{"fold2"')]},
    "reader.calls.missing_root": {"reader": [("    def tasks(self, root):",
                                              "    def tasks(self, root):\n        open(root / 'meta.tsv', 'rb').close()")]},
    "reader.calls.same_elsewhere": {"reader": [
        ("    least: int", "    seen = {}\n    least: int"),
        ('path = root / row["file"]', 'path = self.seen.setdefault(row["file"], root / row["file"])')]},
    "reader.calls.any_listing_order": {"reader": [
        (CALLS, "rows = {row['file']: row for row in table(root / 'meta.tsv')}\n"
                "        for row in [rows[name] for name in os.listdir(root) if name in rows]:"),
        ("number // 2 == 0", "row['site'] == 's0'")]},
    "reader.calls.names_encodings": {"reader": [(CALLS, "(root / 'meta.tsv').read_text()\n        " + CALLS)]},
    "reader.calls.closes_files": {"reader": [(CALLS, "open(root / 'meta.tsv', encoding='utf-8').read()\n        " + CALLS)]},
    "reader.calls.root_unchanged": {"reader": [(CALLS, "(root / 'cache.txt').write_bytes(b'x')\n        " + CALLS)]},
    "reader.calls.no_network": {"reader": [
        (CALLS, "import socket\n        try: socket.create_connection(('127.0.0.1', 9), 0.1).close()\n"
                "        except OSError: pass\n        " + CALLS)]},
    "reader.calls.metadata_only": {"reader": [("path = root / row[\"file\"]",
                                               "path = root / row['file']; import soundfile; soundfile.info(path)")]},
    "reader.calls.constant_memory": {"reader": [("path = root / row[\"file\"]", "path = root / row['file']; path.read_bytes()")]},
    "extractor.energy.keeps_results": {"extractor": [
        ("        def energy", "        import threading; memory = threading.local()\n\n        def energy"),
        ("return result.astype(np.float32)", BUFFER.replace("RESULT", "result.astype(np.float32)"))]},
    "extractor.energy.threads": {"extractor": [("        def energy(x):",
                                                f"        scratch = {{}}\n\n        def energy(x):\n            {SCRATCH}")]},
    "extractor.energy.shape": {"extractor": [("mean(axis=-1)[:, None]", "mean(axis=-1)[:1, None]")]},
    "extractor.energy.dtype": {"extractor": [("result.astype(np.float32)", "result.astype(np.float64)")]},
    "extractor.energy.finite": {"extractor": [("return result.astype(np.float32)",
                                               "return np.where(result > 100, np.nan, result).astype(np.float32)")]},
    "extractor.energy.deterministic": {"extractor": [
        ("return result.astype(np.float32)",
         "calls.append(1); return (result * (1 + 1e-6 * len(calls))).astype(np.float32)"),
        ("        def energy", "        calls = []\n\n        def energy")]},
    "extractor.energy.survives_a_spawned_process": {"extractor": [
        ("    def axis(self", "    def __reduce__(self):\n        raise TypeError('no')\n\n    def axis(self")]},
    "extractor.energy.silence": {"extractor": [("result = frames.mean(axis=-1)[:, None]",
                                                "result = frames.mean(axis=-1)[:, None]\n"
                                                "            result = result if result.any() else result + np.inf")]},
    "extractor.energy.too_short": {"extractor": [('raise ClipError("too short")', "raise IndexError('short')")]},
    "extractor.energy.input_untouched": {"extractor": [
        ("            values = ", "            x[..., -1] = 0\n            values = ")]},
    "extractor.energy.module_equals": {"extractor": [("x.square()", "x.abs()")]},
    "extractor.energy.time_axis": {"extractor": [("2 * hop / rate)", "0.0)")]},
    "extractor.energy.parameters_change_the_key": {"extractor": [
        ("    def axis(self", "    def parameters(self):\n        return {'hop': self.hop}\n\n    def axis(self")]},
    "preparer.scale.parameters_change_the_key": {"preparer": [
        ("    share: float", "    def parameters(self):\n        return {}\n\n    share: float")]},
    "preparer.gain.keeps_results": {"preparer": [
        ("        def apply(x, state, rng):\n            return (x * np.float32(rng.uniform(self.least, 1))).astype(np.float32)",
         "        import threading; memory = threading.local()\n\n        def apply(x, state, rng):\n            "
         "x = (x * np.float32(rng.uniform(self.least, 1))).astype(np.float32); " + BUFFER.replace("RESULT", "x"))]},
    "preparer.gain.threads": {"preparer": [
        ("        def apply(x, state, rng):\n            return (x * np.float32(rng",
         f"        scratch = {{}}\n\n        def apply(x, state, rng):\n            {SCRATCH}; return (x * np.float32(rng")]},
    "preparer.gain.shape": {"preparer": [("context.then(apply, off=off)",
                                          "context.then(apply, off=lambda x, state: x[:, :-1], shape=(context.shape[0], 16000)) "
                                          "if context.shape[0] == 2 else context.then(apply, off=off)")]},
    "preparer.gain.finite": {"preparer": [("return (x * np.float32(rng.uniform(self.least, 1)))",
                                           "return (x * np.float32(rng.uniform(self.least, 1)) / (1 if x.any() else np.nan))")]},
    "preparer.gain.pure": {"preparer": [("return (x * np.float32(rng", "x[..., -1] = 0; return (x * np.float32(rng")]},
    "preparer.scale.fits_on_training_only": {"preparer": [("return (x / np", "seen.append(x); return (x / np"),
                                                          ("for x in arrays]))}", "for x in [*arrays, *seen]]))}")]},
    "preparer.scale.fits_in_any_order": {"preparer": [("max([float(np.abs(x).max()) for x in arrays])",
                                                       "[float(np.abs(x).max()) for x in arrays][0]"),
                                                      ("fit_sums=fit_sums", "fit_sums=None")]},
    "preparer.scale.fit_sums_equals": {"preparer": [("self.share * peak)", "peak * 2)")]},
    "preparer.scale.state_without_pickle": {"preparer": [('{"peak": np.array(self.share * max(',
                                                          '{"peak": np.float64(self.share * max(')]},
    "preparer.gain.draws_from_its_stream": {"preparer": [("rng.uniform(self.least, 1)", "np.random.uniform(self.least, 1)")]},
    "preparer.delay.time_is_true": {"preparer": [("by=-n / context.rate", "by=n / context.rate")]},
    "preparer.cut.windows": {"preparer": [("shape[-1] // self.length", "1 + shape[-1] // self.length")]},
}


SMALL = "energy|gain|scale|delay|cut"
"""Enough components where the fault lies in the plugin."""


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("check", BAD)
def test_a_bad_plugin_fails_exactly_one_check(birds, check):
    birds(BAD[check], only=SMALL if check.startswith("plugin.") else check.split(".")[1])
    assert failed(run_checks("birds")) == [check]


def test_every_rule_has_a_bad_component():
    rules = {(kind, rule.name) for kind, known in RULES.items() for rule in known}
    assert {(check.split(".")[0], check.split(".")[-1]) for check in BAD} == rules
    assert all(rule.text for known in RULES.values() for rule in known)


@mtcore.testing.parametrize_checks("core")
def test_the_core_keeps_its_own_rules(check):
    check()
