"""Imports go one way, plugins import the plugin API only, and the core stays small."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["errors", "clip", "task", "progress", "streams", "plugin", "runfolder", "reading", "extracting", "preparing",
         "reporting", "training", "experiment", "testing", "cli"]
"""A room may import those before it in this list and itself. A run folder gives back the API's `Predictions`, so it lies below
plugin."""
MOST = 7900
"""Code lines of the core: no blanks, comments, docstrings; without testing/."""

CORE = sorted((ROOT / "mtcore").rglob("*.py"))
OUTSIDE = sorted(path for folder in ("plugins", "examples") for path in (ROOT / folder).rglob("*.py")
                 if not {"tests", "scripts"} & set(path.relative_to(ROOT).parts))


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of all imports at any depth; blocks under TYPE_CHECKING aside.

    `from .. import errors` counts as mtcore.errors, `from ..clip import File` as mtcore.clip.File.
    """
    package = [*path.relative_to(ROOT).with_suffix("").parts][:-1]
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for inner in node.orelse:
                visit(inner)
            return
        if isinstance(node, ast.Import):
            found.extend((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            before = package[:len(package) - node.level + 1] if node.level else []
            base = ".".join([*before, *filter(None, [node.module])])
            found.extend((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        for inner in ast.iter_child_nodes(node):
            visit(inner)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def room(name: str) -> str:
    """"mtcore.plugin.registry" is in the room plugin."""
    return (name.split(".") + [""])[1]


def wrong_imports(path: Path) -> list[str]:
    relative = path.relative_to(ROOT / "mtcore")
    here = relative.parts[0].removesuffix(".py")
    wrong = []
    for line, name in imports(path):
        if not within(name, "mtcore"):
            continue
        there = room(name)
        if here == "builtin":
            right = within(name, "mtcore.plugin") or there == "builtin"
        elif here in ("__init__", "__main__"):
            right = there in ROOMS
        else:
            right = there in ROOMS and ROOMS.index(there) <= ROOMS.index(here)  # builtin, found by name, is none of them
        if not right:
            wrong.append(f"{path.relative_to(ROOT)}, line {line}: {name}")
    return wrong


def code_lines(text: str) -> int:
    """Lines that hold a token other than a comment, and that no docstring (or other lone string) covers."""
    noise = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {line for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in noise
             for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def test_every_module_is_in_a_known_room():
    found = {path.relative_to(ROOT / "mtcore").parts[0].removesuffix(".py") for path in CORE}
    assert {"plugin", "reading", "experiment", "builtin"} < found <= {*ROOMS, "builtin", "__init__", "__main__"}


def test_rooms_import_only_those_above_them():
    assert [line for path in CORE for line in wrong_imports(path)] == []


def test_the_package_itself_imports_its_rooms_late():
    tree = ast.parse((ROOT / "mtcore" / "__init__.py").read_text(encoding="utf-8"))
    top = {getattr(node, "module", None) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))}
    assert top <= {"__future__", "typing", "importlib"}


def test_plugins_import_the_plugin_api_and_no_other_plugin():
    assert OUTSIDE
    wrong = []
    for path in OUTSIDE:
        own = next((part for part in path.relative_to(ROOT).parts if part.startswith("mtcore_")), "")
        for line, name in imports(path):
            top = name.split(".")[0]
            inside = any(within(name, f"mtcore.{room}") for room in ("plugin", "testing", "training"))
            if (top == "mtcore" and not inside) or (top.startswith("mtcore_") and top != own):
                wrong.append(f"{path.relative_to(ROOT)}, line {line}: {name}")
    assert wrong == []


def test_a_plugin_takes_only_public_names_of_the_api():
    import mtcore.plugin

    names = {name for path in [*OUTSIDE, *(ROOT / "mtcore" / "builtin").glob("*.py")] for _, name in imports(path)
             if within(name, "mtcore.plugin")}
    assert names <= {"mtcore.plugin", *(f"mtcore.plugin.{name}" for name in mtcore.plugin.__all__)}


def test_the_core_stays_small():
    counts = {str(path.relative_to(ROOT)): code_lines(path.read_text(encoding="utf-8")) for path in CORE
              if path.relative_to(ROOT).parts[1] != "testing"}
    assert sum(counts.values()) < MOST, sorted(counts.items(), key=lambda item: -item[1])[:10]


@pytest.mark.parametrize(("text", "number"), [
    ("", 0), ("# only\n\n", 0), ('"""doc\nstring"""\nx = 1  # why\n', 1),
    ('def f():\n    """d"""\n    return (1,\n            2)\n', 3),
    ('x = """a\nb\n"""\n', 3)])
def test_counting_of_code_lines(text, number):
    assert code_lines(text) == number
