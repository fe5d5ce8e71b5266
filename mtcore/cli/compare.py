"""`mtcore compare`: tables of run folders."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["compare_command"]


@click.command("compare")
@click.argument("folders", metavar="RUNS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Also write a line per row and task.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare_command(folders: tuple[Path, ...], csv_file: Path | None, as_json: bool) -> None:
    """Compare RUNS: run folders, or folders that hold them. Mean and deviation over folds and seeds, gain over single task."""
    from ..reporting.compare import compare
    from ..runfolder import atomic_write

    comparison = compare(folders)
    if csv_file:
        atomic_write(csv_file, comparison.to_csv())
    click.echo(comparison.to_json() if as_json else comparison.text())
