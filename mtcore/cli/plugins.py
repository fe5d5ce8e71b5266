"""`mtcore check-plugin` and `mtcore new-plugin`."""

from __future__ import annotations

import dataclasses
import json

import click

from ..errors import PluginError


@click.command("check-plugin")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def check_plugin_command(name: str, as_json: bool) -> None:
    """Try an installed plugin against the conformance kit: metadata, hooks, readers, extractors, preparers."""
    from ..testing import Outcome, run_checks  # numpy

    def tell(outcome: Outcome) -> None:
        text = f"{outcome.status:<11} {outcome.id}" + (f": {outcome.message}" if outcome.message else "")
        click.echo(text if outcome.status != "failed" else f"{text}\n{'':11} expected: {' '.join(outcome.expected.split())}")

    outcomes = run_checks(name, (lambda outcome: None) if as_json else tell)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=2))
    failed = [outcome.id for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise PluginError(f"{name} fails {len(failed)} of {len(outcomes)} checks: {', '.join(failed)}")
    if not as_json:
        click.echo(f"{name}: all {len(outcomes)} checks passed")
