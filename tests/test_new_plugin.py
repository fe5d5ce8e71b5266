"""What `mtcore new-plugin` makes installs, is listed, and passes its own tests and the conformance kit as it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv

import pytest
from click.testing import CliRunner

from mtcore.cli import main
from mtcore.cli.plugins import COMPONENTS


def rendered(folder, name, *options):
    result = CliRunner().invoke(main, ["new-plugin", name, "--to", str(folder), *options])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh environment that finds this one's packages; `run(*arguments)` calls its Python."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    with open(f"{site}/here.pth", "w") as file:
        file.write("".join(f"import site; site.addsitedir({path!r})\n" for path in sys.path if path.endswith("site-packages")))

    def run(*arguments, cwd, **variables):
        plain = {key: value for key, value in os.environ.items() if not key.startswith("MTCORE_")}
        process = subprocess.run([python, *arguments], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 env={**plain, "MTCORE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", **variables})
        assert process.returncode == 0, process.stdout
        return process.stdout

    run.python = python
    return run


@pytest.mark.parametrize("kind", COMPONENTS)
def test_a_new_plugin_is_well_as_it_is(tmp_path, environment, kind):
    rendered(tmp_path, f"mtcore-new-{kind}", "--kind", kind)
    project, plugin = tmp_path / f"mtcore-new-{kind}", f"new-{kind}"
    subprocess.run([sys.executable, "-m", "pip", "--python", environment.python, "install", "-q", "--no-deps",
                    "--no-build-isolation",
                    "--disable-pip-version-check", str(project)], check=True, cwd=tmp_path)
    assert plugin in environment("-m", "mtcore", "list-plugins", "--strict", cwd=tmp_path, MTCORE_PLUGINS=plugin)
    outcomes = json.loads(environment("-m", "mtcore", "check-plugin", plugin, "--json", cwd=tmp_path))
    assert [outcome for outcome in outcomes if outcome["message"]] == []
    assert " passed" in environment("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", cwd=project)


def test_what_is_written(tmp_path):
    told = rendered(tmp_path, "Bird Calls")
    project = tmp_path / "mtcore-bird-calls"
    files = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert files >= {"pyproject.toml", "README.md", "LICENSE", ".github/workflows/tests.yml", "tests/test_conformance.py",
                     "mtcore_bird_calls/hooks.py", "mtcore_bird_calls/reader.py", "mtcore_bird_calls/example.py",
                     "mtcore_bird_calls/py.typed"}
    assert not [path for path in files if re.search("@[a-z]+@", (project / path).read_text())]
    assert all(f"{project / path}" in told for path in files) and "mtcore check-plugin bird-calls" in told


@pytest.mark.parametrize("name", ["birds", "mtcore-birds", "Mtcore_Birds"])
def test_the_name_may_be_the_distribution_s(tmp_path, name):
    rendered(tmp_path, name)
    assert [path.name for path in tmp_path.iterdir()] == ["mtcore-birds"]


@pytest.mark.parametrize("name", ["core", "mtcore-core", "1birds", "birds!", "", "vögel", "mtcore"])
def test_names_that_cannot_be(tmp_path, name):
    result = CliRunner().invoke(main, ["new-plugin", name, "--to", str(tmp_path)])
    assert result.exit_code == 2 and "expected a name" in result.stderr and not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mtcore-birds").mkdir()
    (tmp_path / "mtcore-birds" / "notes.txt").write_text("mine")
    result = CliRunner().invoke(main, ["new-plugin", "birds", "--to", str(tmp_path)])
    assert result.exit_code == 2 and "take another name" in result.stderr
    assert [path.name for path in (tmp_path / "mtcore-birds").iterdir()] == ["notes.txt"]
