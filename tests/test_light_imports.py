"""Listing and help import neither heavy libraries nor components. In processes of their own, whose modules are looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mtcore.cli import COMMANDS

HEAVY = {"torch", "numpy", "librosa", "sklearn", "scipy", "pyarrow", "soundfile", "joblib", "tensorboard", "pandas", "matplotlib",
         "msgspec", "PIL"}

HOOKS = """
from mtcore.plugin import ReaderSpec, TrunkSpec, hookimpl

@hookimpl
def mtcore_register_readers():
    yield ReaderSpec("calls", "newts_components:Calls", "Newts", example="newts_components:make")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The core and one plugin whose components import torch."""
    site = tmp_path_factory.mktemp("site")
    info = site / "mtcore_newts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mtcore-newts\nVersion: 1.0\nRequires-Dist: mtcore>=0.0.1\n")
    (info / "entry_points.txt").write_text("[mtcore]\nnewts = newts_hooks\n")
    (site / "newts_hooks.py").write_text(HOOKS)
    (site / "newts_components.py").write_text("import torch\n")
    cleared = {key: value for key, value in os.environ.items() if not key.startswith("MTCORE_")}
    return {**cleared, "PYTHONPATH": str(site), "MTCORE_PLUGINS": "newts"}


def after(code: str, environment) -> tuple[str, set[str]]:
    """Standard output, and the modules that are there after running the code."""
    program = f"{code}\nimport sys, json\nprint(json.dumps(list(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


def after_command(arguments, environment):
    return after(f"from mtcore.cli import main\nmain({arguments!r}, prog_name='mtcore', standalone_mode=False)", environment)


@pytest.mark.parametrize("arguments, part", [
    (["list-plugins"], "newts"), (["list-plugins", "--json"], "newts.calls"), (["list-plugins", "--no-load"], "newts"),
    (["list"], "newts.calls"), (["list", "readers", "--json"], "newts.calls"),
    *(([name, "--help"], "Usage") for name in COMMANDS)], ids=str)
def test_listing_and_help_are_light(environment, arguments, part):
    out, modules = after_command(arguments, environment)
    assert part in out
    assert not modules & HEAVY and "newts_components" not in modules
    assert {name for name in modules if name.startswith("mtcore.builtin.")} <= {"mtcore.builtin.hooks"}


def test_help_imports_click_and_nothing_else(environment):
    out, modules = after_command(["--help"], environment)
    assert all(name in out for name in COMMANDS)
    _, before = after("", environment)
    others = {name.partition(".")[0] for name in modules - before} - sys.stdlib_module_names
    assert others == {"click", "mtcore"}
    assert {name for name in modules if name.startswith("mtcore.")} == {"mtcore.cli", "mtcore.errors"}


@pytest.mark.parametrize("arguments", [["list-plugins"], ["list-plugins", "--no-load"]], ids=str)
def test_listing_plugins_imports_no_interface(environment, arguments):
    _, modules = after_command(arguments, environment)
    assert {name for name in modules if name.startswith("mtcore.plugin.")} == {
        "mtcore.plugin.hookspecs", "mtcore.plugin.specs", "mtcore.plugin.loader"}
    assert not modules & {"mtcore.clip", "mtcore.task", "packaging"}


def test_every_name_of_the_plugin_api_is_there_when_it_is_asked_for(environment):
    out, modules = after("import mtcore.plugin as api\nprint(set(api.__all__) - set(dir(api)))\nfrom mtcore.plugin import *\n"
                         "print(Reader.kind, ReaderSpec.kind, PARTS[0], table.__name__)", environment)
    assert out.splitlines() == ["set()", "reader reader train table"] and not modules & HEAVY


@pytest.mark.parametrize("name", ["Raeder", "interface", "KINDS"])
def test_other_names_are_not_of_the_plugin_api(name):
    with pytest.raises(ImportError, match=name):
        exec(f"from mtcore.plugin import {name}")


@pytest.mark.parametrize("module", ["mtcore", "mtcore.plugin", "mtcore.plugin.registry", "mtcore.builtin.hooks"])
def test_what_plugins_import_is_light(environment, module):
    _, modules = after(f"import {module}", environment)
    assert module in modules and not modules & HEAVY


def test_using_a_component_imports_it(environment):
    _, modules = after("from mtcore.plugin.registry import get_registry\ntry: get_registry().load('reader', 'newts.calls')\n"
                       "except Exception: pass", environment)
    assert {"newts_components", "torch"} <= modules
