"""`mtcore list-plugins`, `mtcore list` and `mtcore info`."""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ExperimentError, PluginError, UnknownComponent
from ..plugin.loader import Plugin, discover, near, normalised
from ..plugin.specs import KINDS, PLURALS, Spec
from ..reporting.table import format_table
from . import settings

if TYPE_CHECKING:
    from ..plugin.registry import Registry

__all__ = ["info_command", "list_command", "list_plugins_command"]

_KINDS = {plural: kind for kind, plural in PLURALS.items()}

_ATTRIBUTES = {"reader": ("default_group", "ignored"), "preparer": ("acts_on", "fitted", "random"), "head": ("kinds",),
               "loss": ("kinds",), "metric": ("kinds", "primary", "lower")}
"""What `info` shows of a class besides its parameters."""


@click.command("list-plugins")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--strict", is_flag=True, help="End with 3 if a plugin is neither ok nor blocked (also MTCORE_STRICT_PLUGINS=1).")
@click.option("--no-load", is_flag=True, help="Import no plugin: names, versions and what metadata tell.")
@click.option("--causes", metavar="NAME", help="All that is known of one plugin that is not ok, with the traceback.")
def list_plugins_command(as_json: bool, strict: bool, no_load: bool, causes: str | None) -> None:
    """Plugins: version, state, what each provides, why one is broken."""
    plugins = shown = discover(load=not no_load)
    if causes:
        shown = [plugin for plugin in plugins if normalised(causes) in (plugin.name, plugin.distribution)]
        if not shown:
            raise UnknownComponent(f"no plugin {causes!r} is installed{near(causes, [plugin.name for plugin in plugins])}")
    if as_json:
        click.echo(_json([_plugin_json(plugin) for plugin in shown]))
    elif causes:
        click.echo("\n\n".join(map(_in_full, shown)))
    else:
        rows = [(plugin.name, plugin.distribution, plugin.version, plugin.state, _note(plugin)) for plugin in shown]
        click.echo(format_table(rows, ("plugin", "distribution", "version", "state", "provides, or what is wrong")))
    bad = [plugin for plugin in plugins if plugin.state not in ("ok", "blocked", "found")]
    if bad and (strict or os.environ.get("MTCORE_STRICT_PLUGINS", "0") not in ("", "0")):
        raise PluginError(f"not well: {', '.join(f'{plugin.name} ({plugin.state})' for plugin in bad)}; "
                          f"see mtcore list-plugins --causes {bad[0].name}")
    if bad and not as_json and not causes:
        click.echo(f"\nmtcore list-plugins --causes {bad[0].name} shows more.")


def _json(value: Any) -> str:
    import json  # a few milliseconds that the tables do without

    return json.dumps(value, indent=2, default=str)


def _provides(plugin: Plugin) -> str:
    counts = Counter(spec.kind for spec in plugin.specs)
    return ", ".join(f"{n} {kind if n == 1 else PLURALS[kind]}" for kind, n in counts.items())


def _note(plugin: Plugin) -> str:
    cause = str(plugin.cause).splitlines()[0] if plugin.cause else ""
    return "; ".join(filter(None, (_provides(plugin), cause, plugin.remark)))


def _in_full(plugin: Plugin) -> str:
    lines = [f"{plugin}: {plugin.state}", _provides(plugin), plugin.remark]
    if plugin.cause:
        lines += [str(plugin.cause), plugin.cause.traceback.rstrip()]
    return "\n".join(filter(None, lines))


def _plugin_json(plugin: Plugin) -> dict[str, Any]:
    components = [{"kind": spec.kind, "name": f"{plugin.name}.{spec.name}", "summary": spec.summary} for spec in plugin.specs]
    return {"name": plugin.name, "distribution": plugin.distribution, "version": plugin.version, "state": plugin.state,
            "remark": plugin.remark, "seconds": plugin.seconds, "cause": vars(plugin.cause) if plugin.cause else None,
            "components": components}


@click.command("list")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_command(kind: str | None, as_json: bool) -> None:
    """Components by kind, one line each. KIND is for instance readers or trunk; default: all."""
    registry = settings().registry()
    found = registry.specs(_KINDS.get(kind, kind))
    if as_json:
        click.echo(_json([{"kind": spec.kind, **vars(spec), "name": full} for full, spec in found]))
        return
    found = sorted(found, key=lambda pair: (list(KINDS).index(pair[1].kind), pair[0].partition(".")[0] != "core", pair[0]))
    click.echo(format_table([(spec.kind, full, spec.summary) for full, spec in found], ("kind", "name", "summary")))
    ill = [f"{plugin.name} ({plugin.state})" for plugin in registry.plugins if not plugin.loaded]
    if ill:
        click.echo(f"not loaded: {', '.join(ill)}; see mtcore list-plugins", err=True)


@click.command("info")
@click.argument("name")
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="A reader's dataset; default: its example.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info_command(name: str, root: Path | None, as_json: bool) -> None:
    """One component: parameters, tasks, licence, layout. NAME is a name or, where several kinds have it, KIND:NAME. Of an experiment's file
    its networks: modules with shapes, parameters and multiply-adds per row, of each variation."""
    if name.endswith(".toml"):
        from ..experiment.drawing import networks, text
        from .experiment import opened

        found = networks(opened(Path(name)))
        click.echo(_json(list(found)) if as_json else "\n\n\n".join(map(text, found)))
        return
    registry = settings().registry()
    kind, colon, rest = name.partition(":")
    full, spec = registry.find(_KINDS.get(kind, kind), rest) if colon else registry.find(None, name)
    if root is not None and spec.kind != "reader":
        raise ExperimentError(f"--root is a dataset's folder, but {full} is a {spec.kind}")
    with redirect_stdout(sys.stderr):  # what a component prints must not end up in --json
        told = _told(registry, full, spec, root)
    click.echo(_json(told) if as_json else _told_as_text(told))


def _told(registry: Registry, full: str, spec: Spec, root: Path | None) -> dict[str, Any]:
    """All that is to be said of a component, as JSON takes it."""
    from ..plugin.building import parameters_of, type_name  # msgspec; the lists do without

    cls = registry.load(spec.kind, full)
    parameters = parameters_of(cls)
    doc = inspect.cleandoc(cls.__doc__ or "")
    told = {"name": full, "kind": spec.kind, "summary": spec.summary, "target": spec.target, "revision": spec.revision,
            "doc": "" if doc.startswith(f"{cls.__name__}(") else doc,  # what dataclass writes where there is none
            **_attributes(cls, spec.kind),
            "parameters": [{**vars(parameter), "type": type_name(parameter.type)} for parameter in parameters]}
    if spec.kind == "reader":
        told.update({key: getattr(cls.info, key, "") for key in ("title", "licence", "homepage", "layout", "citation")},
                    downloads=[vars(download) for download in getattr(cls.info, "downloads", ())])
        missing = [parameter.name for parameter in parameters if parameter.required]
        if missing:
            told["dataset"] = {"of": f"not read: it needs {', '.join(missing)}"}
        elif root is not None or spec.example:
            reader = registry.make("reader", full).component
            told.update(_attributes(reader, spec.kind), dataset=_dataset(reader, full, spec, root))
    return told


def _attributes(component: Any, kind: str) -> dict[str, Any]:
    """Of a class or an instance; some depend on parameters and are properties, which a class cannot tell."""
    values = {key: getattr(component, key) for key in _ATTRIBUTES.get(kind, ())}
    return {key: None if isinstance(value, property) else value for key, value in values.items()}


def _dataset(reader: Any, full: str, spec: Spec, root: Path | None) -> dict[str, Any]:
    """Tasks and groups of what lies below `root`, or of the reader's example."""
    import tempfile  # a few milliseconds that listing does without

    with tempfile.TemporaryDirectory() if root is None else nullcontext(root) as folder:
        if root is None:
            from ..plugin.registry import resolve_target

            try:
                resolve_target(spec.example)(Path(folder))
            except Exception as error:
                raise PluginError(f"the example of {full} ({spec.example}) failed: {type(error).__name__}: {error}") from error
        tasks = [{"name": task.name, "kind": task.kind, "labels": list(task.labels), "unit": task.unit}
                 for task in reader.tasks(Path(folder))]
        clips = list(reader.clips(Path(folder)))
    values = dict.fromkeys(pair for clip in clips for pair in clip.groups.items())
    return {"of": "its example" if root is None else str(root), "clips": len(clips), "tasks": tasks,
            "groups": dict(Counter(group for group, _ in values)),
            "parts": sorted({scheme for clip in clips for scheme in clip.parts})}


def _told_as_text(told: dict[str, Any]) -> str:
    facts = [key for key in (*_ATTRIBUTES.get(told["kind"], ()), "title", "licence", "homepage", "citation")
             if told.get(key) not in (None, "", ())]
    blocks = [f"{told['kind']} {told['name']}: {told['summary']}\n{told['target']}, revision {told['revision']}", told["doc"],
              "\n".join(f"{key.replace('_', ' ')}: {_plain(told[key])}" for key in facts)]
    rows = [(item["name"], item["type"], "required" if item["required"] else repr(item["default"]), item["unit"], _help(item))
            for item in told["parameters"]]
    blocks.append("parameters\n" + format_table(rows, ("name", "type", "default", "unit", "")) if rows else "no parameters")
    if told.get("layout"):
        blocks.append(f"layout\n{told['layout']}")
    if told.get("downloads"):
        blocks.append("downloads\n" + format_table([(item["url"], item["size"], item["digest"]) for item in told["downloads"]],
                                                   ("url", "bytes", "digest")))
    if "dataset" in told:
        blocks.append(_dataset_text(told["dataset"]))
    return "\n\n".join(filter(None, blocks))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, (tuple, list)) else str(value)


def _help(item: dict[str, Any]) -> str:
    limits = [f"one of {', '.join(map(str, item['choices']))}"] if item["choices"] else []
    words = {"minimum": "at least", "maximum": "at most"}
    limits += [f"{word} {item[key]:g}" for key, word in words.items() if item[key] is not None]
    return item["help"] + (f" ({', '.join(limits)})" if limits else "")


def _dataset_text(dataset: dict[str, Any]) -> str:
    if "tasks" not in dataset:
        return f"tasks: {dataset['of']}"
    rows = [(task["name"], task["kind"], task["unit"] or ", ".join(task["labels"])) for task in dataset["tasks"]]
    lines = [f"tasks (of {dataset['of']}, {dataset['clips']} clips)", format_table(rows, ("name", "kind", "labels or unit"))]
    if dataset["groups"]:
        lines.append("groups: " + ", ".join(f"{group} ({n})" for group, n in dataset["groups"].items()))
    if dataset["parts"]:
        lines.append(f"parts: {', '.join(dataset['parts'])}")
    return "\n".join(lines)
