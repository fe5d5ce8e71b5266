"""States of plugins, from fake distributions on a temporary path."""

from __future__ import annotations

import importlib
import re
import sys
import textwrap

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from mtcore.plugin.loader import MOST, discover, plainly_fits

GOOD = """
    from mtcore.plugin import ReaderSpec, TrunkSpec, hookimpl

    @hookimpl
    def mtcore_register_readers():
        yield ReaderSpec("calls", "nowhere:Calls", "Bird calls")

    @hookimpl
    def mtcore_register_trunks():
        return [TrunkSpec("nest", "nowhere:Nest")]
"""


def hook(body: str, before: str = "@hookimpl", signature: str = "mtcore_register_readers()") -> str:
    return f"from mtcore.plugin import ReaderSpec, TrunkSpec, hookimpl\n{before}\ndef {signature}:\n    {body}\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install("mtcore-birds", source)` writes a module and its metadata below a folder of sys.path."""
    for variable in ("MTCORE_BLOCK", "MTCORE_PLUGINS", "MTCORE_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    before = set(sys.modules)

    def write(distribution, source=GOOD, entry=None, version="1.0", requires=(), folder="site", entries=None):
        site = tmp_path / folder
        module = re.sub(r"\W", "_", distribution) + "_fake"
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{lines}")
        entries = entries if entries is not None else f"{entry or distribution.removeprefix('mtcore-')} = {module}"
        (info / "entry_points.txt").write_text(f"[console_scripts]\nx = y:z\n\n[mtcore]\n{entries}\n")
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        return module

    yield write
    for name in set(sys.modules) - before:
        if name.endswith("_fake"):
            del sys.modules[name]


def only(name, **options):
    found = [plugin for plugin in discover(**options) if plugin.name == name]
    assert len(found) == 1, found
    return found[0]


def test_ok(install):
    install("mtcore-birds", version="1.2")
    plugin = only("birds")
    assert (plugin.state, plugin.distribution, plugin.version, plugin.cause) == ("ok", "mtcore-birds", "1.2", None)
    assert [(spec.kind, spec.name) for spec in plugin.specs] == [("reader", "calls"), ("trunk", "nest")]


def test_a_distribution_of_another_name_uses_all_of_it(install):
    install("Bird.Calls", entry="bird-calls")
    assert only("bird-calls").state == "ok"


def test_core_comes_first_and_distributions_without_our_group_are_no_plugins(install):
    install("aardvark")
    assert [plugin.name for plugin in discover()][:2] == ["core", "aardvark"]
    assert not any(plugin.distribution in ("pytest", "click") for plugin in discover())


@pytest.mark.parametrize("name", ["birds", "mtcore-birds", "Mtcore_Birds"])
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_blocked_is_not_imported(install, monkeypatch, name, way):
    module = install("mtcore-birds", "raise SystemExit")
    if way == "environment":
        monkeypatch.setenv("MTCORE_BLOCK", f"other, {name}")
    assert only("birds", block=(name,) if way == "argument" else ()).state == "blocked"
    assert module not in sys.modules


def test_allow_list_blocks_all_others_but_core(install, monkeypatch):
    install("mtcore-birds")
    module = install("mtcore-cats")
    monkeypatch.setenv("MTCORE_PLUGINS", "birds")
    assert (only("core").state, only("birds").state, only("cats").state) == ("ok", "ok", "blocked")
    assert "birds" in str(only("cats").cause) and module not in sys.modules


@pytest.mark.parametrize("distribution, entries, part", [
    ("mtcore-birds", "bird = x", "found bird"),
    ("mtcore-birds", "birds = x\nother = y", "one entry point"),
    ("core", "core = x", "distribution mtcore"),
    ("mtcore-core", "core = x", "distribution mtcore"),
])
def test_misnamed(install, distribution, entries, part):
    module = install(distribution, entries=entries)
    found = [plugin for plugin in discover() if plugin.distribution == distribution]
    assert [plugin.state for plugin in found] == ["misnamed"] and part in str(found[0].cause)
    assert module not in sys.modules


def test_a_stranger_that_claims_core_does_not_harm_core(install):
    install("mtcore-core")
    assert {(plugin.distribution, plugin.state) for plugin in discover() if plugin.name == "core"} == {
        ("mtcore", "ok"), ("mtcore-core", "misnamed")}


def test_conflict_shows_both_and_imports_neither(install):
    modules = [install("mtcore-birds"), install("birds", version="7")]
    found = [plugin for plugin in discover() if plugin.name == "birds"]
    assert [(plugin.distribution, plugin.state) for plugin in found] == [("birds", "conflict"), ("mtcore-birds", "conflict")]
    assert all("birds 7" in str(plugin.cause) and "mtcore-birds 1.0" in str(plugin.cause) for plugin in found)
    assert not set(modules) & set(sys.modules) and not any(plugin.specs for plugin in found)


def test_blocking_one_claimant_resolves_a_conflict(install):
    install("mtcore-birds")
    install("birds")
    assert {plugin.distribution: plugin.state for plugin in discover(block=["mtcore-birds"]) if plugin.name == "birds"} == {
        "mtcore-birds": "blocked", "birds": "ok"}


def test_two_that_name_one_hook_module_are_a_conflict(install):
    module = install("mtcore-birds", entries="birds = same_fake")
    install("mtcore-cats", entries="cats = same_fake")
    install("mtcore-thief", entries="thief = mtcore.builtin.hooks")
    assert {name: only(name).state for name in ("birds", "cats", "thief", "core")} == {
        "birds": "conflict", "cats": "conflict", "thief": "conflict", "core": "ok"}
    assert all(part in str(only("cats").cause) for part in ("both claim the hook module same_fake", "MTCORE_BLOCK=mtcore-cats"))
    assert only("birds", block=["mtcore-cats"]).cause.type == "ModuleNotFoundError" and module not in sys.modules


@pytest.mark.parametrize("count, state", [(MOST, "ok"), (MOST + 1, "broken")])
def test_many_components(install, count, state):
    install("mtcore-birds", hook(f"yield from (ReaderSpec(f'a{{i}}', 'x:Y') for i in range({count}))"))
    assert only("birds").state == state


@pytest.mark.parametrize("requirement, state", [
    ("mtcore>=99", "incompatible"), ("mtcore (<0.1)", "incompatible"), ("MTCORE[test]>=99", "incompatible"),
    ("mtcore>=0.0.1", "ok"),
    ("mtcore", "ok"), ("mtcore>=99; python_version < '3'", "ok"), ("mtcore>=99; extra == 'new'", "ok"),
    ("mtcore-features>=99", "ok"),
    ("mtcore >>> 1", "broken")])
def test_incompatible_is_read_before_import(install, requirement, state):
    module = install("mtcore-birds", requires=["numpy", requirement])
    assert only("birds").state == state
    assert (module in sys.modules) == (state == "ok")


BROKEN = {
    "import error": ("from mtcore.plugin import NoSuchThing", "ImportError", "NoSuchThing"),
    "missing dependency": ("import no_such_package", "ModuleNotFoundError", "no_such_package"),
    "syntax error": ("def broken(:", "SyntaxError", ""),
    "exit at import": ("import sys; sys.exit('bye')", "SystemExit", "bye"),
    "hook raises": (hook("raise ValueError('at once')"), "ValueError", "at once"),
    "generator raises late": (hook("yield ReaderSpec('a', 'x:Y')\n    1 / 0"), "ZeroDivisionError", ""),
    "typo in the hook's name": (hook("yield", signature="mtcore_register_reader()"), "PluginError", "did you mean mtcore"),
    "typo declared optional": (hook("yield", "@hookimpl(optionalhook=True)", "mtcore_register_reader()"), "PluginError", "hook"),
    "argument": (hook("yield", signature="mtcore_register_readers(config)"), "PluginValidationError", "config"),
    "argument with default": (hook("yield", signature="mtcore_register_readers(config=None)"), "PluginError", "config"),
    "tryfirst": (hook("yield", "@hookimpl(tryfirst=True)"), "PluginError", "tryfirst"),
    "wrapper": (hook("return (yield)", "@hookimpl(wrapper=True)"), "PluginError", "wrapper"),
    "other function name": (hook("yield", "@hookimpl(specname='mtcore_register_readers')", "f()"), "PluginError", "specname"),
    "no decorator": (hook("yield", before=""), "PluginError", "@hookimpl"),
    "returns nothing": (hook("ReaderSpec('a', 'x:Y')"), "PluginError", "returns None"),
    "returns one spec": (hook("return ReaderSpec('a', 'x:Y')"), "PluginError", "yield specs"),
    "spec of another hook": (hook("yield TrunkSpec('a', 'x:Y')"), "PluginError", "expected ReaderSpec"),
    "no spec": (hook("yield 'x:Y'"), "PluginError", "expected ReaderSpec"),
    "invalid name": (hook("yield ReaderSpec('Calls', 'x:Y')"), "PluginError", "'Calls'"),
    "dotted name": (hook("yield ReaderSpec('birds.calls', 'x:Y')"), "PluginError", "birds.calls"),
    "name twice": (hook("yield ReaderSpec('a', 'x:Y'); yield ReaderSpec('a', 'x:Z')"), "PluginError", "two readers"),
    "target without class": (hook("yield ReaderSpec('a', 'x.y')"), "PluginError", "target"),
    "class as target": (hook("yield ReaderSpec('a', dict)"), "PluginError", "target"),
    "example": (hook("yield ReaderSpec('a', 'x:Y', example='make')"), "PluginError", "example"),
    "revision": (hook("yield ReaderSpec('a', 'x:Y', revision=0)"), "PluginError", "revision"),
    "name of an enumeration": (hook("yield ReaderSpec(Name.A, 'x:Y')") + "from enum import StrEnum\nName = StrEnum('Name', 'A')",
                               "PluginError", "a component's name"),
    "spec of a kind of its own": (hook("yield type('Own', (ReaderSpec,), {'kind': 'own'})('a', 'x:Y')"), "PluginError",
                                  "expected ReaderSpec"),
    "message fails": ("class Mute(Exception):\n    def __str__(self): raise OSError\nraise Mute", "Mute", "cannot be shown"),
    "recursion": ("def deep(): deep()\ndeep()", "RecursionError", ""),
    "exception of no kind": ("class Stop(BaseException): pass\nraise Stop('now')", "Stop", "now"),
    "summary of two lines": (hook("yield ReaderSpec('a', 'x:Y', 'one\\ntwo')"), "PluginError", "summary"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_keeps_the_cause_and_none_of_the_specs(install, case):
    source, kind, part = BROKEN[case]
    good = hook("yield TrunkSpec('nest', 'x:Y')", signature="mtcore_register_trunks()")
    install("mtcore-birds", good + source)
    install("mtcore-cats")
    plugin = only("birds")
    assert (plugin.state, plugin.specs) == ("broken", ())
    assert plugin.cause.type == kind and part in plugin.cause.message
    assert kind in plugin.cause.traceback and "Traceback" in plugin.cause.traceback
    assert only("cats").state == "ok"


numbers = st.lists(st.integers(0, 11), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
bounds = st.lists(st.tuples(st.sampled_from([">=", "<", "< "]), numbers).map("".join), min_size=1, max_size=2).map(",".join)


@settings(max_examples=200, deadline=None)
@given(bounds, numbers)
@example(">=1.0", "1")
@example("<2", "2.0.0")
@example(">=10", "9")
def test_plain_bounds_mean_what_packaging_says(bounds, version):
    assert plainly_fits(f"mtcore{bounds}", version) == Requirement(f"mtcore{bounds}").specifier.contains(version)


@pytest.mark.parametrize("requirement, version", [
    ("mtcore", "1.0"), ("mtcore==1.0", "1.0"), ("mtcore>=1.0; extra == 'x'", "1.0"), ("mtcore[x]>=1", "1.0"),
    ("mtcore>=1.*", "1.0"), ("mtcore>=1.0", "1.0.dev3"), ("mtcore<2", "2.0rc1")])
def test_other_forms_are_left_to_packaging(requirement, version):
    assert not plainly_fits(requirement, version)


def test_entry_point_to_a_missing_module(install):
    install("mtcore-birds", entries="birds = no_such_module_fake")
    assert only("birds").cause.type == "ModuleNotFoundError"


def test_keyboard_interrupt_passes(install):
    install("mtcore-birds", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        discover()


def test_slow_is_a_remark(install):
    install("mtcore-birds", "import time; time.sleep(0.12)\n" + textwrap.dedent(GOOD))
    plugin = only("birds")
    assert plugin.state == "ok" and plugin.remark.startswith("slow") and plugin.seconds > 0.1 and plugin.specs


def test_what_a_plugin_prints_stays_off_standard_output(install, capsys):
    install("mtcore-birds", "print('hello')\n" + textwrap.dedent(GOOD))
    assert only("birds").state == "ok"
    assert capsys.readouterr() == ("", "hello\n")


def test_without_loading(install):
    module = install("mtcore-birds", "1 / 0")
    install("mtcore-old", requires=["mtcore<0.0.1"])
    assert only("birds", load=False).state == "found" and module not in sys.modules
    assert only("old", load=False).state == "incompatible"


def test_stale_metadata_counts_once_and_the_first_on_the_path_wins(install):
    install("mtcore-birds", "1 / 0", version="0.1", folder="stale")
    install("mtcore-birds", version="2.0", folder="new")  # prepended, so before the stale one
    assert (only("birds").version, only("birds").state) == ("2.0", "ok")


def test_a_folder_that_pip_left_behind_is_nothing(install, tmp_path):
    install("mtcore-birds")
    (tmp_path / "site" / "mtcore_birds-1.0.dist-info").rename(tmp_path / "site" / "~tcore_birds-1.0.dist-info")
    importlib.invalidate_caches()
    assert not [plugin for plugin in discover() if plugin.name == "birds"]


@pytest.mark.parametrize("damage", ["name", "entries"])
def test_unreadable_metadata_is_a_row(install, tmp_path, damage):
    install("mtcore-birds")
    install("mtcore-cats")
    info = tmp_path / "site" / "mtcore_birds-1.0.dist-info"
    if damage == "name":
        (info / "METADATA").write_text("Version: 1.0\n")
    else:
        (info / "entry_points.txt").write_bytes(b"[mtcore]\nbirds = \xff\xfe\n")
    rows = [plugin for plugin in discover() if "mtcore_birds" in plugin.distribution]
    assert [row.state for row in rows] == ["broken"] and only("cats").state == "ok"
