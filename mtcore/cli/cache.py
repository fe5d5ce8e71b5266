"""`mtcore cache`: what feature stores hold and take, whether they are as written; and making room."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from ..errors import DataError, ExperimentError

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")
keys_argument = click.argument("keys", nargs=-1, metavar="[KEY]...")


@click.group("cache")
def cache_command():
    """Feature stores: what is stored, for what, how large, last used; making room; whether all is as written. The beginning of a
    KEY is enough."""


def stores(keys=()) -> list:
    """Those whose key begins with one of `keys`, all without any; the last used first."""
    import platformdirs

    from ..extracting.store import Shelf  # numpy
    from . import settings

    cache = settings().cache or Path(platformdirs.user_cache_dir("mtcore"))
    found = sorted(map(Shelf, (cache / "features").glob("*/")), key=lambda one: (-one.used, one.key))
    for key in keys:
        if not any(one.key.startswith(key) for one in found):
            raise ExperimentError(f"{cache}: no store's key begins with {key!r}; `mtcore cache list` shows them")
    return [one for one in found if one.key.startswith(tuple(keys) or "")]


def described(one) -> dict:
    from ..extracting.store import open_shard

    shards = [(path, *open_shard(path)) for path in one.shards()]
    steps = [step["use"] + "".join(f" {name}={value}" for name, value in step.items() if name not in ("use", "revision", "source"))
             for step in one.prefix.get("steps", ())]
    return {"key": one.key, "rows": sum(len(table) for _, table, _ in shards), "bytes": one.size, "used": round(one.used),
            "dtypes": sorted({dtype.name for _, _, dtype in shards}), "steps": steps, "folder": str(one.folder), "prefix": one.prefix,
            "shards": [{"name": path.stem, "rows": len(table), "dtype": dtype.name} for path, table, dtype in shards]}


def show(found: list) -> None:
    from ..reporting.table import format_table

    rows = [described(one) for one in found]
    click.echo(format_table([[row["key"], row["rows"], round(row["bytes"] / 1e6, 1), " ".join(row["dtypes"]),
                              round((time.time() - row["used"]) / 86400, 1), " > ".join(row["steps"])] for row in rows],
                            ["key", "rows", "MB", "stored as", "days unused", "steps"]))


@cache_command.command("list")
@json_option
def list_command(as_json: bool):
    """All stores, the last used first."""
    click.echo(json.dumps([described(one) for one in stores()], indent=1)) if as_json else show(stores())


@cache_command.command("show")
@keys_argument
def show_command(keys):
    """Stores in full, as JSON: prefix, shards, rows, types."""
    click.echo(json.dumps([described(one) for one in stores(keys)], indent=1))


@cache_command.command("prune")
@keys_argument
@click.option("--older-than", type=float, metavar="DAYS", help="Stores not used for so long.")
@click.option("--not-used-by", multiple=True, type=click.Path(dir_okay=False, path_type=Path), metavar="EXPERIMENT",
              help="Stores that none of these experiments needs.")
@click.option("--max-size", type=float, metavar="GB", help="The longest unused, until all stores together take no more.")
@click.option("--yes", is_flag=True, help="Delete. Without it only what would go is shown.")
def prune_command(keys, older_than, not_used_by, max_size, yes: bool):
    """Delete stores that meet all conditions given, and what killed processes left a day ago. What is needed again is made again."""
    from .experiment import opened

    if not keys and not not_used_by and older_than is max_size is None:
        raise ExperimentError("expected which stores to delete: KEY, --older-than, --not-used-by or --max-size")
    everything, chosen = stores(), stores(keys)
    needed = {want.chain.key for path in not_used_by for one in [opened(path)] for want in one.wanted(one.runs())}
    chosen = [one for one in chosen if one.key not in needed and time.time() - one.used >= (older_than or 0) * 86400]
    if max_size is not None:
        over = sum(one.size for one in everything) - max_size * 1e9
        chosen = [one for i, one in enumerate(chosen) if sum(older.size for older in chosen[i + 1:]) < over]
    left = [path for one in everything for path in one.leftovers()]
    show(chosen)
    click.echo(f"{len(chosen)} stores and {len(left)} files left by killed processes" + ("" if yes else "; nothing is deleted without --yes"))
    for one in chosen if yes else ():
        one.remove()
    for path in left if yes else ():
        path.unlink(missing_ok=True)


@cache_command.command("verify")
@keys_argument
@json_option
def verify_command(keys, as_json: bool):
    """Read every byte and compare it with the checksums; bad shards are named (exit code 1)."""
    from ..extracting.store import open_shard

    paths, bad = [path for one in stores(keys) for path in one.shards()], {}
    for path in paths:
        try:
            open_shard(path, checked=True)
        except DataError as error:
            bad[str(path)] = str(error)
    click.echo(json.dumps({"shards": len(paths), "bad": bad}, indent=1) if as_json else "\n".join(
        [*bad.values(), f"{len(paths) - len(bad)} of {len(paths)} shards are as written"]))
    if bad:
        raise DataError(f"{len(bad)} of {len(paths)} shards are not as written")
