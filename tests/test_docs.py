"""What the documents say is so: examples work, and lists of keys, hooks and commands are those of the code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import typing
import venv
from pathlib import Path

import pytest

from mtcore import plugin
from mtcore.cli import COMMANDS
from mtcore.experiment import file
from mtcore.experiment.build import HEADS, LOSSES, METRICS, Builder
from mtcore.experiment.file import Config, parse
from mtcore.experiment.vary import expand
from mtcore.plugin import hookspecs, loader
from mtcore.task import KINDS
from mtcore.testing import checks_of, write_tone
from mtcore.testing.kit import RULES

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = sorted((ROOT / "docs" / "plugins").glob("*.md"))
EXPERIMENTS = [(path, block) for path in DOCUMENTS if path not in PAGES
               for block in re.findall(r"^```toml\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)]


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(text: str, header: str) -> list[list[str]]:
    """Cells of the table below this header, without the marks of code."""
    lines = text.split(f"\n{header}\n")[1].splitlines()[1:]
    table = lines[:next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table]


@pytest.mark.parametrize("path, block", EXPERIMENTS, ids=[f"{path.name}-{i}" for i, (path, _) in enumerate(EXPERIMENTS)])
def test_experiments_are_valid(path, block, registry, tmp_path):
    data = tomllib.loads(block)
    tasks = parse(data).tasks
    # which tasks there are to vary, only the data says
    data["vary"] = {key: values for key, values in data.get("vary", {}).items() if key != "tasks"}
    for variation in expand(data, list(data["datasets"]), list(tasks)):
        config = parse(variation.data)
        builder = Builder(config, registry, tmp_path)
        for name, dataset in config.datasets.items():
            builder.make("reader", dataset.reader, f"datasets.{name}.reader")
            for one in config.inputs:
                assert builder.chain(name, one).key
        assert config.model.module or builder.trunks()
        for kind in ("sampler", "balancer", "trainer"):
            builder.make(kind, getattr(config.train, kind), f"train.{kind}")
        for name, task in tasks.items():
            for kind, value in (("loss", task.loss), ("head", task.head), *(("metric", metric) for metric in task.metrics or ())):
                assert value is None or builder.make(kind, value, f"tasks.{name}")


@pytest.mark.parametrize("path", sorted(ROOT.glob("plugins/*/README.md")), ids=lambda path: path.parent.name)
def test_components_in_a_plugins_readme_exist(path, registry):
    known = {part for kind in loader.KINDS for full, _ in registry.specs(kind) for part in (full, full.partition(".")[2])}
    blocks = re.findall(r"(?:^    .*\n)+|^```toml\n.*?^```", path.read_text(encoding="utf-8"), re.M | re.S)
    keys = r"\b(?:use|extractor|trunk|reader|sampler|balancer|trainer|loss|head) = \"([\w.]+)\""
    assert not [name for block in blocks for name in re.findall(keys, block) if name not in known]


def test_readme_and_experiment_page_have_an_experiment():
    assert {"README.md", "experiment.md"} <= {path.name for path, _ in EXPERIMENTS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target, anchor in re.findall(r"\]\(([^):#]+)#?([^)]*)\)", path.read_text(encoding="utf-8")):
        page = path.parent / target
        assert page.exists(), target
        assert not anchor or f"\n## {anchor}\n" in page.read_text(encoding="utf-8").lower(), anchor


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(path):
    text = path.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) + re.findall(r"`([^`\n]+)`", text))
    assert set(re.findall(r"\bmtcore ([a-z][a-z-]*)", code)) <= set(COMMANDS)


def test_readme_in_python(tmp_path, monkeypatch):
    sounds = tmp_path / "recordings"
    for number in range(48):
        write_tone(sounds / f"{number}.wav", pitch=200 + 300 * (number % 2) + number, seconds=0.3)
    lines = [f"{n}.wav,{('calm', 'angry')[n % 2]},{20 + n},s{n // 4}" for n in range(48)]
    (sounds / "index.csv").write_text("\n".join(["path,emotion,age,speaker", *lines]) + "\n")
    (block,) = [text for language, text in blocks(ROOT / "README.md") if language == "toml"]
    (tmp_path / "first.toml").write_text(block)
    (code,) = [text for language, text in blocks(ROOT / "README.md") if language == "python"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MTCORE_CACHE", str(tmp_path / "cache"))
    exec(code, names := {})
    assert names["output"].tasks["emotion"].shape == (16, 2) and len(names["train"]) == 48 * 4 // 5 // 4 * 4


def test_readme_names_every_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if not re.search(rf"[`, ]{name}\b", text)] == []


def keys(kind, path=""):
    """(path, default) of all keys that a file may have; tables by name are called NAME."""
    for field in dataclasses.fields(kind):
        inner = typing.get_type_hints(kind)[field.name]
        here = f"{path}{field.name.rstrip('_')}"
        if typing.get_origin(inner) is dict and dataclasses.is_dataclass(typing.get_args(inner)[1]):
            yield from keys(typing.get_args(inner)[1], f"{here}.NAME.")
        elif dataclasses.is_dataclass(inner):
            yield from keys(inner, f"{here}.")
        else:
            required = field.default is field.default_factory is dataclasses.MISSING
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            yield here, "required" if required else default


def test_keys_and_defaults_of_the_experiment_file():
    known = dict(keys(Config)) | dict(keys(file.TaskUse, "datasets.NAME.tasks.TASK."))
    found = {key: default for key, _, default, *_ in rows(document("experiment.md"), "| key | type | default | |")}
    words = {"required": "required", "–": None}
    assert {key: words[text] if text in words else tomllib.loads(f"value = {text}")["value"] for key, text in found.items()} == known


def test_defaults_by_kind():
    found = {kind: cells for kind, *cells in rows(document("experiment.md"), "| kind | head | loss | metrics |")}
    short = lambda name, absent: name.removeprefix("core.") if name else absent
    assert found == {kind: [short(HEADS.get(kind), "must be named"), short(LOSSES.get(kind), "must be named"),
                            short(", ".join(METRICS.get(kind, [])), "none")] for kind in KINDS}


def hook_rows() -> list[str]:
    """Of each hook its signature, the base class of its targets, and what that leaves to be defined."""
    hooks = [(name, hook) for name, hook in vars(hookspecs).items() if name.startswith("mtcore_register_")]
    lines = []
    for name, hook in hooks:
        spec = typing.get_args(typing.get_type_hints(hook)["return"])[0]
        base = getattr(plugin, spec.kind.capitalize())
        methods = [f"`{method}({', '.join(list(inspect.signature(function).parameters)[1:])})`"
                   for method, function in vars(base).items() if method in base.__abstractmethods__]
        arguments = ", ".join(inspect.signature(hook).parameters)
        lines.append(f"| `{name}({arguments}) -> Iterable[{spec.__name__}]` | `{base.__name__}` | {', '.join(methods)} |")
    return lines


def test_hooks():
    assert "\n".join(["| hook | base class | methods |", "|---|---|---|", *hook_rows(), ""]) in document("plugins/hooks.md")


@pytest.mark.parametrize("kind, place", [(plugin.Spec, 0), (plugin.Example, 1)])
def test_fields(kind, place):
    table = document("plugins/hooks.md").split("| field | default | |\n")[1 + place]
    found = re.findall(r"^\| `(\w+)` \| (.+?) \|", table.split("\n\n")[0], re.M)
    defaults = [field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
                for field in dataclasses.fields(kind)]
    assert found == [(field.name, "required" if default is dataclasses.MISSING else f"`{default!r}`")
                     for field, default in zip(dataclasses.fields(kind), defaults)]


def test_parameters():
    told = re.search(r"`param\((.*?)\)`", document("plugins/hooks.md"))[1].replace("*, ", "")
    assert told.split(", ") == list(inspect.signature(plugin.param).parameters)


def test_attributes_that_steps_and_readers_have():
    for name, header, kind in (("reader.md", "| attribute | |", plugin.Reader), ("preparer.md", "| class attribute | |", plugin.Preparer)):
        assert [cells[0] for cells in rows(document(f"plugins/{name}"), header)] == [
            key for key, hint in vars(kind)["__annotations__"].items() if "ClassVar" in hint]


def test_tasks():
    told = [cells[0] for cells in rows(document("plugins/reader.md"), "| task | a clip's target |")]
    assert told == [f"Task.{kind}({', '.join(inspect.signature(getattr(plugin.Task, kind)).parameters)})" for kind in KINDS]


def test_what_a_step_becomes():
    table = document("plugins/preparer.md").split("| argument | |\n|---|---|\n")[1].split("\n\n")[0]
    told = re.findall(r"`(\w+)(\(.*?\))?`", " ".join(line.split(" | ")[0] for line in table.splitlines()))
    assert {name for name, _ in told} == {field.name for field in dataclasses.fields(plugin.Prepared)}
    context = re.findall(r"^\| `context\.(\w+)` \|", document("plugins/preparer.md"), re.M)
    assert context == [field.name for field in dataclasses.fields(plugin.Context)]
    assert [name + arguments for name, arguments in told if name + arguments not in plugin.Prepared.__doc__] == []


def test_states():
    told = [cells[0] for cells in rows(document("plugins/hooks.md"), "| state | |")]
    assert told == [state for state in re.findall(r"^`(\w+)` ", loader.__doc__, re.M) if state != "found"]


def check_tables() -> str:
    """What the kit checks, in its own words."""
    checks_of("core")  # registers the rules
    parts = []
    for kind, rules in RULES.items():
        lines = [f"| `{rule.name}` | {' '.join(rule.text.split())} |" for rule in rules]
        parts.append("\n".join([f"### {kind}", "", "| check | expects |", "|---|---|", *lines]))
    return "\n\n".join(parts) + "\n"


def test_checks_of_the_conformance_kit():
    assert document("plugins/testing.md").endswith(check_tables())


def test_rooms_import_from_those_above_only():
    table = document("architecture.md").split("| room | what it does |\n")[1].splitlines()[1:]
    lines = [line.split("|")[1] for line in table if line.startswith("|")]
    place = {name: i for i, line in enumerate(lines) for name in re.findall("`([a-z]+)/?`", line)}
    source = ROOT / "mtcore"
    files = [path for path in source.rglob("*.py") if path.relative_to(source).parts[0].removesuffix(".py") in place]
    wrong = []
    for path in files:
        own = path.relative_to(source).parts
        for node in ast.walk(_at_run_time(ast.parse(path.read_text(encoding="utf-8")))):
            if isinstance(node, ast.ImportFrom) and node.level == len(own) and node.module:
                room = node.module.split(".")[0]
                if place[room] > place[own[0].removesuffix(".py")]:
                    wrong.append(f"{'/'.join(own)}: {room}")
    assert len({path.relative_to(source).parts[0] for path in files}) == len(place) and wrong == []


def _at_run_time(module: ast.Module) -> ast.Module:
    """Without what is imported for annotations only."""
    module.body = [node for node in module.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    return module


# The pages for plugin authors run as they stand ------------------------------------------------------------------------

OFFLINE = {
    "apt-get": """for name; do case $name in asterisk-*) touch ${name}_1.deb;; esac; done""",
    "dpkg": """exec "$PYTHON" "$SHIMS/unpack.py" "$2" "$3/usr/share/asterisk/sounds\"""",
    "pip": """[ "$*" = "install build twine" ] && exit
exec "$BASE" -m pip --python "$PYTHON" --disable-pip-version-check "$@" --quiet --no-deps --no-build-isolation""",
    "python": """[ "$*" = "-m build" ] && exec "$PYTHON" -m hatchling build
exec "$PYTHON" "$@\"""",
    "twine": """[ $1 = check ] || [ $1 = upload ] && ls dist/*.whl dist/*.tar.gz && shift && exec ls "$@\"""",
    "mtcore": """exec "$PYTHON" -m mtcore "$@\"""",
    "pytest": """exec "$PYTHON" -m pytest -p no:cacheprovider "$@\"""",
}
"""What stands for programs that would need the network or are not in the tests' environment. Packages of recordings become a few hums,
`pip` installs without dependencies, `build` is hatchling alone, `twine` sees that there are files. Everything else is the real thing."""

UNPACK = """import re, sys
from pathlib import Path
from mtcore.testing import write_tone
VOICES = {"en": "en_US_f_Allison", "es": "es_MX_f_Allison", "fr": "fr_CA_f_June", "it": "it_IT_m_Carlo", "ru": "ru_RU_f_IvrvoiceRU"}
language = re.search("sounds-(..)-wav", sys.argv[1])[1]
for p, phrase in enumerate(["added", "beep", *(f"{kind}/{n}" for kind in ("digits", "letters", "phonetic", "silence") for n in "12")]):
    write_tone(Path(sys.argv[2]) / VOICES[language] / f"{phrase}.wav", pitch=300 * (1 + list(VOICES).index(language)) + 10 * p, seconds=0.3)
"""


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of all fenced blocks."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def file_of(text: str) -> tuple[str, str]:
    """Path and content of a block whose first line names its file."""
    return re.match(r"# (\S+\.(?:py|toml))\n", text)[1], text


class Author:
    """Follows a page in an empty folder and a fresh environment, which finds this one's packages: writes its files, runs its commands."""

    def __init__(self, folder: Path):
        self.place, shims, base = folder / "work", folder / "shims", folder / "environment"
        venv.create(base, with_pip=False, symlinks=True)
        with open(Path(sysconfig.get_path("purelib", vars={"base": str(base), "platbase": str(base)})) / "here.pth", "w") as file:
            file.writelines(f"import site; site.addsitedir({path!r})\n" for path in sys.path if path.endswith("site-packages"))
        for made in (self.place, shims):
            made.mkdir()
        (shims / "unpack.py").write_text(UNPACK)
        for name, text in OFFLINE.items():
            (shims / name).write_text(f"#!/bin/sh\n{text}\n")
            (shims / name).chmod(0o755)
        plain = {key: value for key, value in os.environ.items() if not key.startswith("MTCORE_")}
        self.variables = {**plain, "PATH": f"{shims}:{plain['PATH']}", "PYTHON": str(base / "bin" / "python"), "BASE": sys.executable,
                          "SHIMS": str(shims), "MTCORE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        self.cwd, self.out = self.place, ""

    def write(self, text: str, below: str = "") -> None:
        path, content = file_of(text)
        target = self.place / below / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")

    def run(self, commands: str) -> None:
        done = subprocess.run(["sh", "-ec", f"{commands}\npwd > {self.place}/../cwd"], cwd=self.cwd, env=self.variables, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, f"{commands}\n{done.stdout}"
        self.out, self.cwd = done.stdout, Path((self.place.parent / "cwd").read_text().strip())

    def follow(self, page: Path, below: str = "") -> None:
        for language, text in blocks(page):
            if language == "sh":
                self.run(text)
            elif language == "text":
                assert {line.strip() for line in text.splitlines()} <= {line.strip() for line in self.out.splitlines()}, self.out
            else:
                self.write(text, below)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_the_pages_can_be_run(page):
    for language, text in blocks(page):
        assert language in ("python", "toml", "sh", "text")
        assert language in ("sh", "text") or file_of(text)
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))


def test_the_tutorial_works(tmp_path):
    Author(tmp_path).follow(ROOT / "docs" / "plugins" / "tutorial.md")


def test_the_plugin_of_the_other_pages_works(tmp_path):
    author = Author(tmp_path)
    author.run("mtcore new-plugin birds && rm -r mtcore-birds/tests mtcore-birds/mtcore_birds/*.py\n"
               "touch mtcore-birds/mtcore_birds/__init__.py && pip install -e mtcore-birds")
    pages = [page for page in PAGES if page.name != "tutorial.md"]
    for text in (text for page in pages for language, text in blocks(page) if language == "python"):
        author.write(text, "mtcore-birds")
    for page in pages:
        author.follow(page, "mtcore-birds")
    author.run("pytest mtcore-birds -W error -k 'test_birds or plugin.'")  # the other checks have been run by check-plugin
    assert f"{4 + len(RULES['plugin'])} passed" in author.out, author.out
