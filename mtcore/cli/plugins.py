"""`mtcore check-plugin` and `mtcore new-plugin`."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import click

from ..errors import ExperimentError

TEMPLATES = Path(__file__).parent / "templates"
COMPONENTS = {"reader": ("recordings", "reader", "Recordings of the dataset {}"),
              "extractor": ("level", "extractor", "Level of frames in dB"),
              "preparer": ("peak", "preparer", "Scales to the largest magnitude of the training clips")}
"""By kind: the component's name, its module and what it is."""


@click.command("check-plugin")
@click.argument("name")
@click.option("--expect", "expected", metavar="ID", multiple=True,
              help="A check that is known to fail, and may; it is an error if it passes. May be repeated.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def check_plugin_command(name: str, expected: tuple[str, ...], as_json: bool) -> None:
    """Try an installed plugin against the conformance kit: metadata, hooks, readers, extractors, preparers."""
    from ..testing.kit import Outcome, run_checks, summarised  # numpy

    said: dict[str, str] = {}

    def tell(outcome: Outcome) -> None:
        before = said.setdefault(outcome.message, outcome.id)
        message = outcome.message if before == outcome.id else f"as {before}"
        text = f"{outcome.status:<11} {outcome.id}" + (f": {message}" if outcome.message else "")
        click.echo(text if outcome.status != "failed" else f"{text}\n{'':11} expected: {' '.join(outcome.expected.split())}")

    outcomes = run_checks(name, (lambda outcome: None) if as_json else tell)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=2))
    summary = summarised(name, outcomes, expected)
    if not as_json:
        click.echo(summary)


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(list(COMPONENTS)), default="reader", show_default=True,
              help="What its first component is.")
@click.option("--to", "parent", type=click.Path(file_okay=False, path_type=Path), default=".", metavar="DIR", show_default="here",
              help="Folder in which the project's folder is made.")
def new_plugin_command(name: str, kind: str, parent: Path) -> None:
    """A plugin project that installs, is listed and passes its tests. NAME is the plugin's or, with mtcore- before it, the
    distribution's."""
    plugin = re.sub(r"[-_. ]+", "-", name.strip()).lower().removeprefix("mtcore-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", plugin) or plugin in ("core", "mtcore"):
        raise ExperimentError(f"expected a name of letters, digits and -, a letter first, other than core; found {name!r}")
    folder = parent / f"mtcore-{plugin}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExperimentError(f"{folder}: expected nothing there, or an empty folder; take another name or another --to")
    written = _render(folder, plugin, kind)
    click.echo("\n".join(f"{folder / path}" for path in written))
    click.echo(f"\nnext:\n  pip install -e \"{folder}[test]\"\n  mtcore check-plugin {plugin}\n  pytest {folder}\n"
               f"{folder / 'README.md'} says what to write where, and how to publish it.")


def _render(folder: Path, plugin: str, kind: str) -> list[Path]:
    """Write the project; paths relative to its folder, in order."""
    import datetime
    from importlib import metadata

    component, module, summary = COMPONENTS[kind]
    major, minor = metadata.version("mtcore").split(".")[:2]
    following = f"0.{int(minor) + 1}" if major == "0" else str(int(major) + 1)
    words = {"plugin": plugin, "distribution": f"mtcore-{plugin}", "package": f"mtcore_{plugin.replace('-', '_')}",
             "module": module, "component": component, "summary": summary.format(plugin),
             "bounds": f">={major}.{minor},<{following}",
             "year": str(datetime.date.today().year),
             "needs": "" if kind == "reader" else ', "numpy>=1.26"'}
    written = []
    for part in ("common", kind):
        for template in sorted(path for path in (TEMPLATES / part).rglob("*.tmpl") if path.is_file()):
            parts = template.relative_to(TEMPLATES / part).parts
            relative = Path(*(words["package"] if name == "package" else name for name in parts))
            target = folder / relative.with_name(relative.name.removesuffix(".tmpl"))
            target.parent.mkdir(parents=True, exist_ok=True)
            text = re.sub(r"@([a-z]+)@", lambda found: words[found[1]], template.read_text(encoding="utf-8"))
            target.write_text(text, encoding="utf-8")
            written.append(target.relative_to(folder))
    return sorted(written)
