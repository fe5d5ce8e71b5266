"""The command line: listing, errors, exit codes, tables, progress."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import mtcore.cli
from mtcore.cli import COMMANDS, main, settings
from mtcore.cli.progress import TerminalProgress
from mtcore.errors import DataError, ExperimentError, LeakError, PluginError, TrainingError
from mtcore.plugin.registry import get_registry
from mtcore.reporting.table import format_table

HOOKS = """
    from mtcore.plugin import ExtractorSpec, LossSpec, PreparerSpec, ReaderSpec, hookimpl

    @hookimpl
    def mtcore_register_readers():
        yield ReaderSpec("calls", "owls_fake_parts:Calls", "Owl calls", example="owls_fake_parts:make")
        yield ReaderSpec("night", "owls_fake_parts:Night", "Owls at night")
        yield ReaderSpec("failing", "owls_fake_parts:Calls", example="owls_fake_parts:fail")

    @hookimpl
    def mtcore_register_preparers():
        yield PreparerSpec("hoot", "owls_fake_parts:Hoot", "A step")

    @hookimpl
    def mtcore_register_extractors():
        yield ExtractorSpec("hoot", "owls_fake_parts:Nothing")
"""

PARTS = """
    from dataclasses import dataclass
    from mtcore.plugin import Clip, DataError, DatasetInfo, Download, File, Preparer, Reader, Task, param, table

    @dataclass(frozen=True, kw_only=True)
    class Calls(Reader):
        \"\"\"Calls of owls, by wood.\"\"\"
        info = DatasetInfo(title="Owls", licence="CC0", homepage="https://owls.example", layout="index.csv",
                           downloads=(Download("https://owls.example/all.zip", "md5:0", 12),))
        default_group = "wood"
        quality: str = param("A", help="worst quality", choices=("A", "B"))

        def tasks(self, root):
            print("said by a component")
            return [Task.multiclass("species", sorted({row["species"] for row in table(root / "index.csv")})),
                    Task.regression("height", "m")]

        def clips(self, root):
            for row in table(root / "index.csv"):
                yield Clip(row["path"], File(root / row["path"]), {"species": row["species"]}, {"wood": row["wood"]},
                           {"given": "train"})

    @dataclass(frozen=True, kw_only=True)
    class Night(Calls):
        hour: int = param(help="hour", unit="h", minimum=0, maximum=23)

    @dataclass(frozen=True, kw_only=True)
    class Hoot(Preparer):
        random = True
        gain: float = param(0.5, help="gain", unit="dB", minimum=0)
        def prepare(self, context):
            return None

    def make(root):
        (root / "index.csv").write_text("path,species,wood\\na.wav,tawny,w1\\nb.wav,barn,w2\\nc.wav,barn,w2\\n")

    def fail(root):
        raise OSError("no room")
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Plugins owls (well) and cats (broken)."""
    for variable in ("MTCORE_BLOCK", "MTCORE_PLUGINS", "MTCORE_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MTCORE_BLOCK", "dcase ravdess features")
    for name, source in (("owls", HOOKS), ("cats", "import no_such_package")):
        info = tmp_path / f"mtcore_{name}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mtcore-{name}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[mtcore]\n{name} = {name}_fake_hooks\n")
        (tmp_path / f"{name}_fake_hooks.py").write_text(textwrap.dedent(source))
    (tmp_path / "owls_fake_parts.py").write_text(textwrap.dedent(PARTS))
    monkeypatch.syspath_prepend(str(tmp_path))
    get_registry.cache_clear()
    yield tmp_path
    get_registry.cache_clear()
    for name in [name for name in sys.modules if "_fake_" in name]:
        del sys.modules[name]


def run(*arguments, code=0):
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def test_list_plugins_shows_states_and_what_is_provided(site):
    lines = run("list-plugins").stdout.splitlines()
    rows = {line.split()[0]: line for line in lines[1:] if line}
    assert lines[0].split()[:4] == ["plugin", "distribution", "version", "state"]
    assert "3 readers, 1 preparer, 1 extractor" in rows["owls"] or "1 extractor, 1 preparer, 3 readers" in rows["owls"]
    assert "mtcore-cats" in rows["cats"] and "broken" in rows["cats"] and "no_such_package" in rows["cats"]
    assert "mtcore list-plugins --causes cats" in lines[-1]


def test_list_plugins_as_json(site):
    rows = {row["name"]: row for row in json.loads(run("list-plugins", "--json").stdout)}
    assert rows["owls"]["state"] == "ok" and rows["owls"]["version"] == "2.5" and rows["owls"]["cause"] is None
    assert {"kind": "reader", "name": "owls.calls", "summary": "Owl calls"} in rows["owls"]["components"]
    assert rows["cats"]["cause"]["type"] == "ModuleNotFoundError" and rows["cats"]["components"] == []


def test_causes_show_the_traceback(site):
    text = run("list-plugins", "--causes", "cats").stdout
    assert "plugin cats (distribution mtcore-cats 2.5): broken" in text and "Traceback" in text and "no_such_package" in text
    assert "did you mean owls?" in run("list-plugins", "--causes", "owl", code=2).stderr


def test_strict_ends_with_3(site, monkeypatch):
    result = run("list-plugins", "--strict", code=3)
    assert "cats" in result.stdout and "cats (broken)" in result.stderr
    run("list-plugins", "--strict", "--block", "cats")
    monkeypatch.setenv("MTCORE_STRICT_PLUGINS", "1")
    run("list-plugins", code=3)
    run("list", "readers", code=3)


def test_without_loading_nothing_is_imported(site):
    rows = {row["name"]: row["state"] for row in json.loads(run("list-plugins", "--no-load", "--json").stdout)}
    assert rows["owls"] == rows["cats"] == "found" and "owls_fake_hooks" not in sys.modules


def test_block_holds_for_one_call_and_before_or_after_the_command(site):
    before = os.environ["MTCORE_BLOCK"]
    for arguments in (["--block", "owls", "list", "readers"], ["list", "readers", "--block", "owls"]):
        assert "owls.calls" not in run(*arguments).stdout
        assert os.environ["MTCORE_BLOCK"] == before
    assert "owls.calls" in run("list", "readers").stdout


@pytest.mark.parametrize("kind", ["reader", "readers"])
def test_list_by_kind(site, kind):
    result = run("list", kind)
    assert "owls.calls" in result.stdout and "Owl calls" in result.stdout and "hoot" not in result.stdout
    assert "cats (broken)" in result.stderr
    rows = json.loads(run("list", kind, "--json").stdout)
    assert {"owls.calls", "core.csv"} <= {row["name"] for row in rows} and {row["kind"] for row in rows} == {"reader"}


def test_list_all_kinds_and_an_unknown_one(site):
    assert {"reader", "trunk", "loss"} <= {line.split()[0] for line in run("list").stdout.splitlines()}
    assert "did you mean reader?" in run("list", "raeder", code=2).stderr


def test_info_of_a_reader_is_of_its_example(site):
    text = run("info", "owls.calls").stdout
    for part in ("Calls of owls, by wood.", "licence: CC0", "default group: wood", "quality", "(one of A, B)",
                 "its example, 3 clips", "barn, tawny", "https://owls.example/all.zip", "groups: wood (2)", "parts: given"):
        assert part in text
    told = json.loads(run("info", "calls", "--json").stdout)
    assert told["dataset"]["tasks"][0] == {"name": "species", "kind": "multiclass", "labels": ["barn", "tawny"], "unit": ""}
    assert "said by a component" in run("info", "calls", "--json").stderr
    assert told["parameters"][0]["choices"] == ["A", "B"] and told["downloads"][0]["size"] == 12


def test_info_of_a_reader_with_a_root(site, tmp_path):
    (tmp_path / "index.csv").write_text("path,species,wood\na.wav,snowy,w1\n")
    text = run("info", "calls", "--root", str(tmp_path)).stdout
    assert "snowy" in text and str(tmp_path) in text and "its example" not in text
    assert "index.csv" in run("info", "calls", "--root", str(tmp_path / "none"), code=1).stderr
    assert "preparer" in run("info", "preparer:hoot", "--root", str(tmp_path), code=2).stderr


def test_info_where_the_reader_or_its_example_cannot_be_used(site):
    text = run("info", "night").stdout
    assert "required" in text and "at least 0, at most 23" in text and "it needs hour" in text
    assert "no room" in run("info", "failing", code=3).stderr


def test_info_of_a_name_in_several_kinds(site):
    message = run("info", "hoot", code=2).stderr
    assert "preparer:owls.hoot" in message and "extractor:owls.hoot" in message
    text = run("info", "preparer:hoot").stdout
    assert "acts on: signal" in text and "random: yes" in text and "fitted: no" in text and "dB" in text
    assert "mtcore info owls.hoot --traceback" in run("info", "extractor:owls.hoot", code=3).stderr


def test_info_of_unknown_and_broken(site):
    assert "did you mean calls?" in run("info", "cals", code=2).stderr
    assert "mtcore list-plugins --causes cats" in run("info", "cats.meow", code=3).stderr


def test_info_of_all_components_of_the_core(site):
    for full, spec in get_registry().specs():
        if full.startswith("core."):
            told = json.loads(run("info", f"{spec.kind}:{full}", "--json").stdout)
            assert told["name"] == full and all(item["help"] for item in told["parameters"])


# Errors and options ---------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch):
    """`command(action)`: a command `act` that does this."""
    def register(action):
        monkeypatch.setitem(COMMANDS, "act", ("mtcore.cli:act", "Acts."))
        monkeypatch.setattr(mtcore.cli, "act", click.command("act")(action), raising=False)
    return register


def raising(error):
    def action():
        raise error
    return action


@pytest.mark.parametrize("error, code", [
    (DataError("d"), 1), (TrainingError("t"), 1), (ExperimentError("e"), 2), (LeakError("l"), 2), (PluginError("p"), 3),
    (KeyboardInterrupt(), 130), (click.UsageError("u"), 2)])
def test_exit_codes(command, error, code):
    command(raising(error))
    result = run("act", code=code)
    assert "Traceback" not in result.output and result.stdout == ""


def test_an_error_is_its_message_and_with_traceback_more(command):
    command(raising(DataError("first\nsecond")))
    assert run("act", code=1).stderr == "error: first\nsecond\n"
    for arguments in (["act", "--traceback"], ["--traceback", "act"]):
        text = run(*arguments, code=1).stderr
        assert "Traceback" in text and "in action" in text and text.endswith("error: first\nsecond\n")


def test_an_unforeseen_error_is_short_and_tells_how_to_see_more(command):
    command(raising(ZeroDivisionError("oh")))
    text = run("act", code=1).stderr
    assert "ZeroDivisionError: oh" in text and "--traceback" in text and "Traceback (" not in text
    assert "Traceback (" in run("act", "--traceback", code=1).stderr


def test_unknown_command():
    assert "No such command" in run("lsit", code=2).stderr


def test_settings_from_either_side(command, tmp_path, monkeypatch):
    seen = []
    command(lambda: seen.append(settings()))
    monkeypatch.delenv("MTCORE_CACHE", raising=False)
    run("--cache", "a", "act", "--runs", "b")
    run("--cache", "a", "act", "--cache", "c")
    monkeypatch.setenv("MTCORE_CACHE", "e")
    run("act")
    run("act", "--cache", "d")
    run("--cache", "d", "act")
    assert [(found.cache, found.runs) for found in seen] == [
        (Path("a"), Path("b")), (Path("c"), None), (Path("e"), None), (Path("d"), None), (Path("d"), None)]


def test_every_command_can_be_imported_and_knows_the_common_options():
    for name in COMMANDS:
        text = run(name, "--help").stdout
        assert all(option in text for option in ("--block", "--cache", "--runs", "--traceback"))


def test_version_and_help_as_a_module():
    for arguments, part in ((["--version"], "0.1.0"), (["--help"], "list-plugins")):
        done = subprocess.run([sys.executable, "-m", "mtcore", *arguments], capture_output=True, text=True)
        assert done.returncode == 0 and part in done.stdout and done.stderr == ""


def test_a_reader_of_our_output_that_leaves_is_no_trouble(site):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, "PYTHONPATH": str(site)}}
    with subprocess.Popen([sys.executable, "-m", "mtcore", "list"], **pipes) as process:
        process.stdout.close()
        told = process.stderr.read().decode()
    assert "Traceback" not in told and "BrokenPipe" not in told


# Tables and progress --------------------------------------------------------------------------------------------------


def test_tables():
    assert format_table([("a", 1, 0.5, True), ("bcd", 10, None, None)], ("name", "n", "share", "is")) == (
        "name   n  share  is\n"
        "a      1    0.5  yes\n"
        "bcd   10")
    assert format_table([], ("name", "n")) == "name  n"
    wide = format_table([("鳥", "x"), ("e\u0301", "y"), ("a\nb", "z")], ("", ""))
    assert wide.splitlines()[1:] == ["鳥   x", "e\u0301    y", "a b  z"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def ticking(step):
    times = iter(range(0, 10**6, step))
    return lambda: next(times)


def test_progress_elsewhere_is_plain_lines():
    stream, out = io.StringIO(), io.StringIO()
    progress = TerminalProgress(stream, out, ticking(4))
    assert list(progress.track(iter("abcdef"), 6, "extract")) == list("abcdef")
    assert stream.getvalue().splitlines() == [
        "extract: 3 of 6, 0.25/s, 0:12 left", "extract: 6 of 6, 0.25/s", "extract: 6 of 6, 0.214/s, 0:28 in all"]
    progress.say("done")
    assert out.getvalue() == "done\n"


def test_progress_on_a_terminal_is_one_line():
    stream, out = Terminal(), io.StringIO()
    progress = TerminalProgress(stream, out, ticking(1))
    list(progress.track(range(3), 3, "train"))
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("train: 3 of 3, 0.75/s, 0:04 in all\n") and "1 of 3, 1/s, 0:02 left" in text


def test_progress_that_is_broken_off_ends_its_line():
    stream = Terminal()
    with pytest.raises(ZeroDivisionError):
        for item in TerminalProgress(stream, io.StringIO(), ticking(1)).track(range(3), 3, "train"):
            1 // item
    assert stream.getvalue().endswith("\n")
