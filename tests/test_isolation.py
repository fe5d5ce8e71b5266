"""All that can be wrong with plugins at once, as a user meets it: the command `mtcore` and a folder of faulty distributions."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import textwrap
from pathlib import Path

import pytest

from mtcore.plugin.loader import discover

WELL = """
from mtcore.plugin import ReaderSpec, hookimpl

@hookimpl
def mtcore_register_readers():
    yield ReaderSpec("calls", "{module}_parts:Calls", "Calls of {module}")
"""

PARTS = """
from dataclasses import dataclass
from mtcore.plugin import Clip, Lazy, Reader, Task

def noise(number):
    import numpy as np
    return np.random.default_rng(number).standard_normal((1, 800)).astype("float32"), 8000.0

@dataclass(frozen=True, kw_only=True)
class Calls(Reader):
    default_group = "site"
    generated = True

    def tasks(self, root):
        return [Task.multiclass("species", ("a", "b"))]

    def clips(self, root):
        for i in range(24):
            yield Clip(f"c{i}", Lazy(noise, (i,), key=f"noise-{i}"), {"species": "ab"[i % 2]}, {"site": f"larks:{i // 2}"})
"""


def hook(*lines: str, before: str = "") -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"from mtcore.plugin import ReaderSpec, hookimpl\n{before}\n@hookimpl\ndef mtcore_register_readers():\n{body}"


BROKEN = {
    "import": ("from mtcore.plugin import NoSuchThing", "ImportError"),
    "missing": ("import no_such_package", "ModuleNotFoundError"),
    "syntax": ("def broken(:", "SyntaxError"),
    "exits": ("import sys; sys.exit('bye')", "SystemExit"),
    "base": ("class Stop(BaseException): pass\nraise Stop('stopped')", "Stop"),
    "deep": ("def deep(): deep()\ndeep()", "RecursionError"),
    "memory": ("raise MemoryError", "MemoryError"),
    "mute": ("class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute", "Mute"),
    "raises": (hook("raise ValueError('at once')"), "ValueError"),
    "late": (hook("yield ReaderSpec('a', 'x:Y')", "1 / 0"), "ZeroDivisionError"),
    "endless": (hook("from itertools import count", "yield from (ReaderSpec(f'a{i}', 'x:Y') for i in count())"), "PluginError"),
    "member": (hook("yield ReaderSpec(Name.A, 'x:Y')",
                    before="from enum import Enum\nclass Name(str, Enum):\n    A = 'a'"), "PluginError"),
    "kind": (hook("yield Odd('a', 'x:Y')", before="class Odd(ReaderSpec):\n    kind = 'oddity'"), "PluginError"),
    "unequal": (hook("yield ReaderSpec(Name('a'), 'x:Y')",
                     before="class Name(str):\n    def __eq__(self, other): raise OSError\n    __hash__ = None"), "PluginError"),
    "object": (hook("yield object()"), "PluginError"),
}
"""Hook module, and the type of the cause."""

WARNING = f"import warnings\nwarnings.warn('old')\n{WELL}"
NOISY = f"""
import logging, sys, threading, warnings
print("hello from noisy")
sys.stdout.write("and more")
sys.stdout = None
warnings.simplefilter("ignore")
logging.basicConfig(level="DEBUG")
threading.Thread(target=lambda: None).start()
sys.path.append("/nowhere")
{WELL}"""
FOREIGN = hook("yield ReaderSpec('calls', 'x:Y', 'V\\u00f6gel \\u9ce5 \\ud800')")

STATES = {**dict.fromkeys(("core", "larks", "noisy", "foreign", "warns", "doves", "geese", "snails"), "ok"),
          "bats": "blocked", "moths": "misnamed", "newts": "conflict", "toads": "conflict", "frogs": "conflict",
          "thief": "conflict", "ants": "incompatible", **dict.fromkeys(BROKEN, "broken")}

EXPERIMENT = """
name = "tiny"
inputs.main = {{extractor = "core.spectrogram", steps = [{{use = "core.crop_or_pad", length = "0.1s"}}, "core.standardize"]}}
split = {{folds = 1, test = 0.3, validation = 0.0}}
model.trunk = {{use = "core.mlp", hidden = [4]}}
train.epochs = 1
report.reporters = []
[datasets.one]
reader = "{reader}"
"""


class World:
    """A folder of distributions, and the command run against it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.present = [plugin.distribution for plugin in discover(load=False) if plugin.distribution != "mtcore"]
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("MTCORE_")} | {
            "PYTHONPATH": os.pathsep.join(str(folder / name) for name in ("site", "source", "stale")),
            "MTCORE_BLOCK": ",".join(["bats", *self.present]), "MTCORE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}

    def install(self, name, source=WELL, version="1.0", requires=(), entry=None, folder="site", suffix="dist-info"):
        plugin = name.removeprefix("mtcore-")
        module = f"{plugin}_hooks"
        info = self.folder / folder / f"{name.replace('-', '_')}-{version}.{suffix}"
        info.mkdir(parents=True)
        lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
        description = "\nName: not this\n\nA description.\n"
        (info / ("METADATA" if suffix == "dist-info" else "PKG-INFO")).write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}{description}")
        (info / "entry_points.txt").write_text(f"[mtcore]\n{entry or f'{plugin} = {module}'}\n")
        if source is not None:
            (info.parent / f"{module}.py").write_text(source.replace("{module}", plugin))

    def run(self, *arguments, code=0, **environment):
        """The finished process. `MTCORE_…="value"` adds to the environment."""
        command = [Path(sysconfig.get_path("scripts")) / "mtcore", *arguments]
        done = subprocess.run(command, capture_output=True, encoding=environment.get("PYTHONIOENCODING", "utf-8"),
                              env=self.environment | environment, cwd=self.folder)
        assert done.returncode == code, f"exit code {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
        return done

    def experiment(self, reader: str) -> Path:
        path = self.folder / f"{reader}.toml"
        path.write_text(textwrap.dedent(EXPERIMENT.format(reader=reader)))
        return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    world.install("mtcore-larks")
    (world.folder / "site" / "larks_parts.py").write_text(PARTS)
    world.install("mtcore-noisy", NOISY)
    world.install("mtcore-foreign", FOREIGN)
    world.install("mtcore-warns", WARNING)
    world.install("mtcore-bats", "raise SystemExit")
    world.install("mtcore-moths", entry="moth = moths_hooks")
    world.install("mtcore-newts")
    world.install("newts", version="7")
    world.install("mtcore-toads", entry="toads = same_hooks")
    world.install("mtcore-frogs", entry="frogs = same_hooks")
    world.install("mtcore-thief", entry="thief = mtcore.builtin.hooks")
    world.install("mtcore-ants", requires=["mtcore>=99"], source="1 / 0")
    world.install("mtcore-snails", f"import time; time.sleep(0.11)\n{WELL}")
    for name, (source, _) in BROKEN.items():
        world.install(f"mtcore-{name}", source)
    world.install("mtcore-doves", version="2.0")
    world.install("mtcore-doves", "1 / 0", version="0.1", folder="stale")
    world.install("mtcore-geese", source=None)  # an editable installation: metadata here and beside the source
    world.install("mtcore-geese", folder="source", suffix="egg-info")
    torn = world.folder / "site" / "mtcore_torn-1.0.dist-info"
    torn.mkdir()
    (torn / "METADATA").write_bytes(b"Name: \xff")
    (torn / "entry_points.txt").write_text("[mtcore]\ntorn = torn_hooks\n")
    return world


def rows(world, *arguments, **environment):
    """{distribution: row} of what `list-plugins --json` prints."""
    return {row["distribution"]: row for row in json.loads(world.run("list-plugins", "--json", *arguments, **environment).stdout)}


def test_every_plugin_is_one_row_with_its_state(world):
    listed = json.loads(world.run("list-plugins", "--json").stdout)
    mine = [row for row in listed if row["distribution"] not in world.present]
    torn = next(row for row in mine if row["name"] == "?")
    assert (torn["state"], torn["cause"]["type"]) == ("broken", "UnicodeDecodeError") and "mtcore_torn" in torn["distribution"]
    assert {row["name"]: row["state"] for row in mine if row is not torn} == STATES
    assert len(mine) == len(STATES) + 2  # newts twice, and the one without a name
    by = {row["name"]: row for row in mine}
    assert (by["doves"]["version"], by["geese"]["version"]) == ("2.0", "1.0")
    assert by["snails"]["remark"].startswith("slow") and by["snails"]["components"]
    assert all(by[name]["cause"]["type"] == kind and not by[name]["components"] for name, (_, kind) in BROKEN.items())


def test_the_table_shows_all_and_only_strict_ends_with_an_error(world):
    done = world.run("list-plugins")
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line[:1].islower()}
    assert all(STATES[name] in lines["mtcore" if name == "core" else f"mtcore-{name}"] for name in STATES)
    assert "hello from noisy" in done.stderr and "hello" not in done.stdout
    strict = world.run("list-plugins", "--strict", code=3)
    assert all(name in strict.stdout for name in STATES)
    assert "endless (broken)" in strict.stderr and "Traceback" not in strict.stderr


@pytest.mark.parametrize("name", ["syntax", "exits", "deep", "mute", "late"])
def test_causes_show_the_traceback(world, name):
    text = world.run("list-plugins", "--causes", name).stdout
    assert text.startswith(f"plugin {name} (distribution mtcore-{name} 1.0): broken")
    assert "Traceback (most recent call last)" in text and BROKEN[name][1] in text and f"{name}_hooks.py" in text


def test_other_commands_do_their_work(world):
    listed = world.run("list", "readers")
    assert {"core.csv", "larks.calls", "noisy.calls", "doves.calls"} <= set(listed.stdout.split())
    assert "endless (broken)" in listed.stderr and "ants (incompatible)" in listed.stderr
    assert json.loads(world.run("list", "--json").stdout)
    assert "core.mlp" in world.run("info", "core.mlp").stdout
    help = world.run("--help")
    assert "list-plugins" in help.stdout and help.stderr == ""  # no plugin was imported: noisy would have said so


def test_check_and_run_do_their_work(world):
    assert "all well" in world.run("check", world.experiment("larks.calls")).stdout
    world.run("run", world.experiment("core.tones"), "--sample", "8")
    assert len(list((world.folder / "runs").rglob("metrics.jsonl"))) == 1


@pytest.mark.parametrize("plugin, state, cause", [
    ("late", "broken", "ZeroDivisionError"), ("ants", "incompatible", "needs mtcore >=99"), ("moths", "misnamed", "found moth"),
    ("frogs", "conflict", "same_hooks"), ("bats", "blocked", "MTCORE_BLOCK")])
def test_a_component_of_a_plugin_that_is_not_well_is_an_error(world, plugin, state, cause):
    action = ["check", world.experiment(f"{plugin}.calls")] if plugin == "late" else ["info", f"{plugin}.calls"]
    message = world.run(*action, code=3).stderr
    for part in (f"plugin {plugin} (distribution mtcore-{plugin} 1.0)", state, cause, f"mtcore list-plugins --causes {plugin}"):
        assert part in message
    assert "error: " in message and "Traceback" not in message


BLOCKING = {
    "MTCORE_BLOCK": lambda world: ((), {"MTCORE_BLOCK": f"{world.environment['MTCORE_BLOCK']},larks"}),
    "MTCORE_PLUGINS": lambda world: ((), {"MTCORE_PLUGINS": "doves"}),
    "--block": lambda world: (("--block", "mtcore-larks"), {}),
}


@pytest.mark.parametrize("way", BLOCKING)
def test_blocking(world, way):
    options, environment = BLOCKING[way](world)
    listed = rows(world, *options, **environment)
    assert listed["mtcore-larks"]["state"] == "blocked" and listed["mtcore-bats"]["state"] == "blocked"
    assert listed["mtcore"]["state"] == listed["mtcore-doves"]["state"] == "ok"
    assert (listed["mtcore-late"]["state"] == "blocked") == (way == "MTCORE_PLUGINS")
    names = world.run("list", "readers", *options, **environment).stdout.split()
    assert "larks.calls" not in names and {"doves.calls", "core.csv"} <= set(names)
    message = world.run("check", world.experiment("larks.calls"), *options, code=3, **environment).stderr
    assert "plugin larks (distribution mtcore-larks 1.0) is blocked" in message


def test_strict_plugins(world):
    strict = {"MTCORE_STRICT_PLUGINS": "1"}
    for arguments in (["list-plugins"], ["list"], ["check", world.experiment("core.tones")]):
        message = world.run(*arguments, code=3, **strict).stderr
        assert all(name in message for name in ("late", "moths", "frogs", "ants")) and "error: " in message
    alone = {**strict, "MTCORE_PLUGINS": "larks"}  # what is blocked is nobody's fault
    torn = world.folder / "site" / "mtcore_torn-1.0.dist-info"
    torn.rename(world.folder / "torn")
    try:
        assert "larks" in world.run("list-plugins", **alone).stdout
        assert "larks.calls" in world.run("list", **alone).stdout
    finally:
        (world.folder / "torn").rename(torn)


def test_warnings_as_errors_break_only_who_warns(world):
    listed = rows(world, PYTHONWARNINGS="error::UserWarning", MTCORE_PLUGINS="warns,larks")
    assert (listed["mtcore-warns"]["state"], listed["mtcore-warns"]["cause"]["type"]) == ("broken", "UserWarning")
    assert listed["mtcore-larks"]["state"] == "ok"


def test_a_summary_that_the_terminal_cannot_show(world):
    shown = world.run("list", "readers", PYTHONIOENCODING="latin-1", MTCORE_PLUGINS="foreign").stdout
    assert "foreign.calls" in shown and "Vögel \\u9ce5 \\ud800" in shown
