"""What is published: each plugin has its environment in tox.ini, wheels are complete and reproducible, and a plugin brings the core."""

from __future__ import annotations

import configparser
import json
import subprocess
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from contextlib import chdir
from pathlib import Path

import pytest
from hatchling.build import build_sdist, build_wheel
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PLUGINS = sorted([*(folder for folder in (ROOT / "plugins").iterdir() if folder.is_dir()),
                  *(file.parent for file in (ROOT / "examples").glob("*/pyproject.toml"))])
PROJECTS = {"mtcore": ROOT} | {folder.name: folder for folder in PLUGINS}
TABLES = {name: tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")) for name, folder in PROJECTS.items()}


def built(build, project: Path, folder: Path) -> Path:
    with chdir(project):
        return folder / build(str(folder))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    return {name: built(build_wheel, project, folder) for name, project in PROJECTS.items()}


def test_each_plugin_has_an_environment_of_its_own():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    environments = tox["tox"]["envlist"].split()
    assert [name for name in environments if name.startswith("mtcore-")] == sorted(folder.name for folder in PLUGINS)
    assert {"all", "lowest"} < set(environments)
    assert [table["project"]["name"] for table in TABLES.values()] == list(PROJECTS)
    assert {name: table["build-system"] for name, table in TABLES.items()} == dict.fromkeys(PROJECTS, TABLES["mtcore"]["build-system"])


def test_lowest_constraints_are_the_lower_bounds():
    lines = {name: (ROOT / name).read_text(encoding="utf-8").splitlines() for name in ("constraints.txt", "constraints-lowest.txt")}
    pins = {name: [line for line in text if not line.startswith("#")] for name, text in lines.items()}
    tested = {Requirement(line).name for line in pins["constraints.txt"]}
    found = {requirement for table in TABLES.values() for requirement in map(Requirement, table["project"]["dependencies"])
             if requirement.name not in tested | {"mtcore"}}
    bounds = {f"{one.name}=={limit.version}" for one in found for limit in one.specifier if limit.operator == ">="}
    assert pins["constraints-lowest.txt"] == sorted(bounds)
    assert {Requirement(line).name for line in bounds} == {one.name for one in found}


@pytest.mark.parametrize("name", PROJECTS)
def test_wheels_are_complete(name, wheels):
    [package] = TABLES[name]["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    project = PROJECTS[name]
    files = {path.relative_to(project).as_posix() for path in (project / package).rglob("*")
             if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheels[name]) as wheel:
        inside = {file for file in wheel.namelist() if ".dist-info/" not in file}
        [licence] = [wheel.read(file) for file in wheel.namelist() if file.endswith(".dist-info/licenses/LICENSE")]
    assert inside == files and f"{package}/py.typed" in files
    assert licence == (project / "LICENSE").read_bytes()


@pytest.mark.parametrize("name", PROJECTS)
def test_a_wheel_out_of_the_source_distribution_has_the_same_bytes(name, wheels, tmp_path):
    with tarfile.open(built(build_sdist, PROJECTS[name], tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = [folder for folder in tmp_path.iterdir() if folder.is_dir()]
    assert built(build_wheel, unpacked, tmp_path).read_bytes() == wheels[name].read_bytes()


@pytest.mark.parametrize("name", [folder.name for folder in PLUGINS])
def test_a_plugin_out_of_a_folder_of_wheels_brings_the_core(name, wheels, tmp_path):
    dependencies = tmp_path / "dependencies"  # what is installed here, without anything of mtcore: nothing has to be downloaded
    dependencies.mkdir()
    for installed in Path(sysconfig.get_path("purelib")).iterdir():
        if "mtcore" not in installed.name:
            (dependencies / installed.name).symlink_to(installed)
    venv.create(tmp_path / "venv", symlinks=True)
    fresh = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    (Path(sysconfig.get_path("purelib", vars=fresh)) / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    scripts = Path(sysconfig.get_path("scripts", vars=fresh))
    run = lambda *command: subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    done = run(scripts / "python", "-m", "pip", "install", "--no-index", "--find-links", wheels[name].parent, name)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(scripts / "mtcore", "list-plugins", "--strict", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["distribution"]: row["state"] for row in json.loads(done.stdout)} == {"mtcore": "ok", name: "ok"}
