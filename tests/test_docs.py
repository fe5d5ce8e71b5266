"""What the documents say is so: examples work, and lists of keys, hooks and commands are those of the code."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest

from mtcore.cli import COMMANDS
from mtcore.experiment import file
from mtcore.experiment.build import HEADS, LOSSES, METRICS, Builder
from mtcore.experiment.file import Config, parse
from mtcore.experiment.vary import expand
from mtcore.plugin import hookspecs
from mtcore.task import KINDS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXPERIMENTS = [(path, block) for path in DOCUMENTS
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


def test_readme_and_experiment_page_have_an_experiment():
    assert {"README.md", "experiment.md"} <= {path.name for path, _ in EXPERIMENTS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(path):
    text = path.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) + re.findall(r"`([^`\n]+)`", text))
    assert set(re.findall(r"\bmtcore ([a-z][a-z-]*)", code)) <= set(COMMANDS)


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
    known = dict(keys(Config)) | dict(keys(file.TaskUseConfig, "datasets.NAME.tasks.TASK."))
    found = {key: default for key, _, default, *_ in rows(document("experiment.md"), "| key | type | default | |")}
    words = {"required": "required", "–": None}
    assert {key: words[text] if text in words else tomllib.loads(f"value = {text}")["value"] for key, text in found.items()} == known


def test_keys_that_are_refused_are_named():
    assert [key for key in file.NOT_YET if f"`{key.replace('*', 'NAME')}`" not in document("experiment.md")] == []


def test_defaults_by_kind():
    found = {kind: cells for kind, *cells in rows(document("experiment.md"), "| kind | head | loss | metrics |")}
    short = lambda name, absent: name.removeprefix("core.") if name else absent
    assert found == {kind: [short(HEADS.get(kind), "must be named"), short(LOSSES.get(kind), "must be named"),
                            short(", ".join(METRICS.get(kind, [])), "none")] for kind in KINDS}


def test_hooks():
    known = [[f"{name}()", typing.get_args(typing.get_type_hints(hook)["return"])[0].__name__]
             for name, hook in vars(hookspecs).items() if name.startswith("mtcore_register_")]
    found = rows(document("plugins.md"), "| hook | yields | target is a subclass of |")
    assert [cells[:2] for cells in found] == known
    assert [f"{cells[2]}Spec" for cells in found] == [spec for _, spec in known]


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


def test_the_plugin_of_the_page_works(tmp_path):
    for name, text in re.findall(r"^```(?:python|toml) (\S+)\n(.*?)^```", document("plugins.md"), re.M | re.S):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = tmp_path / "mtcore_birds-0.1.0.dist-info"  # as an installer would write it
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
                                        + "".join(f"Requires-Dist: {line}\n" for line in project["dependencies"]))
    entries = project["entry-points"]["mtcore"].items()
    (installed / "entry_points.txt").write_text("[mtcore]\n" + "".join(f"{name} = {module}\n" for name, module in entries))
    (tmp_path / "mtcore_birds" / "__init__.py").touch()
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], cwd=tmp_path,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
