"""check, extract, run, demo."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ..errors import ExperimentError, MtcoreError
from . import settings

DEMO = {
    "name": "demo",
    "datasets": {"tones": {"reader": "core.tones"}, "chords": {"reader": "core.chords"}},
    "signal": {"steps": ["mono"]},
    "inputs": {"main": {"extractor": {"use": "core.spectrogram", "hop": 0.032}, "steps": [{"use": "core.standardize", "per": "bin"}]}},
    "split": {"folds": 3, "validation": 0.1},
    "model": {"trunk": {"use": "core.cnn", "channels": [12, 24, 32]}},
    "train": {"epochs": 8, "batch_size": 16, "optimizer": {"use": "adamw", "lr": 5e-3}, "scheduler": {"use": "cosine", "warmup": 10}},
    "vary": {"tasks": ["singles", "all"]},
}
"""Two generated datasets, three tasks of different kinds; each task alone and all together."""

experiment_argument = click.argument("experiment", type=click.Path(dir_okay=False, path_type=Path))
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key; the value is TOML, else text.")
jobs_option = click.option("--jobs", type=click.IntRange(min=1), help="So many threads extract, and so many runs train at a time; default: 1.")


def opened(path: Path, overrides=(), **options):
    """The experiment of a file with the options that every command knows."""
    from ..experiment.plan import Experiment  # torch and all that, only when there is work
    from .progress import TerminalProgress

    pairs = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ExperimentError(f"--set: expected KEY=VALUE, found {text!r}")
        pairs[key] = value
    return Experiment.from_file(path, pairs, progress=TerminalProgress(), **common(), **options)


def common() -> dict:
    """Folders as the options of the command line say."""
    return {"cache": settings().cache, "runs_folder": settings().runs}


@click.command("check")
@experiment_argument
@set_option
def check_command(experiment: Path, overrides):
    """Find everything that can go wrong before hours are spent; a few clips go through to the loss."""
    start = time.perf_counter()
    for line in opened(experiment, overrides).check():
        click.echo(line)
    click.echo(f"all well ({time.perf_counter() - start:.1f} s)")


@click.command("extract")
@experiment_argument
@set_option
@jobs_option
def extract_command(experiment: Path, overrides, jobs: int):
    """Fill the feature stores of an experiment."""
    one = opened(experiment, overrides, jobs=jobs)
    one.extract()
    for want in one.wanted(one.runs()):
        click.echo(f"{len(want.clips)} rows in {want.store.folder}")


@click.command("run")
@experiment_argument
@set_option
@jobs_option
@click.option("--sample", type=click.IntRange(min=1), help="At most so many clips per dataset and part: a quick look, a run of its own.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
def run_command(experiment: Path, overrides, jobs: int, sample: int | None, dry_run: bool):
    """Do what is missing, skip what exists, continue what was cut off."""
    one = opened(experiment, overrides, jobs=jobs, sample=sample)
    if not dry_run:
        finish(one)
        return
    runs = one.runs()
    for want in one.wanted([run for run in runs if not run.done]):
        click.echo(f"extract {len(want.missing())} of {len(want.clips)} rows into {want.store.folder}")
    for run in runs:
        epoch = run.folder.info.get("epoch")
        click.echo(f"{'skip' if run.done else f'continue after epoch {epoch}' if epoch else 'train'} {run.folder.path}")


@click.command("demo")
@click.argument("reader", required=False)
def demo_command(reader: str | None):
    """A complete small experiment on generated sound, in ./runs/demo, or on READER's example, in ./runs/demo-READER."""
    from ..experiment.plan import Experiment
    from .progress import TerminalProgress

    options, content, folder = common(), dict(DEMO), Path.cwd()
    options["runs_folder"] = options["runs_folder"] or folder / "runs"
    if reader:
        content |= example_experiment(reader, options["runs_folder"] / "demo-data")
    finish(Experiment(content, folder, progress=TerminalProgress(), **options))


def example_experiment(reader: str, root: Path) -> dict:
    """The demo on a reader's own miniature, made below `root`."""
    from ..plugin.registry import get_registry, resolve_target
    from ..reading.decode import decode

    full, spec = get_registry().find("reader", reader)
    if spec.example is None:
        raise ExperimentError(f"{full} brings no example; `mtcore info {full}` says how to get the dataset")
    root = root / full
    made = resolve_target(spec.example)(root)
    value = {"use": full, **getattr(made, "parameters", {})}
    content = {"name": f"demo-{full}", "datasets": {"data": {"reader": value, "root": str(root)}}, "vary": {},
               "split": {"folds": 1, "test": 0.3, "validation": 0.0}}
    first = next(iter(get_registry().make("reader", value).component.clips(root)), None)
    if first is None or decode(first.audio)[1] is None:  # pictures and the like: no time to cut frames from
        return content | {"signal": {}, "inputs": {"main": {"extractor": "core.waveform", "steps": ["core.standardize"]}},
                          "model": {"trunk": "core.mlp"}}
    steps = [{"use": "core.crop_or_pad", "length": "median"}, {"use": "core.standardize", "per": "bin"}]
    return content | {"inputs": {"main": {"extractor": "core.spectrogram", "steps": steps}}}


def finish(one) -> None:
    """Run, compare, and say where everything lies."""
    from ..reporting.compare import compare

    failure = None
    try:
        runs = one.run()
    except MtcoreError as error:
        failure, runs = error, [run for run in one.runs() if run.done]
        if not runs:
            raise
    if one.processes.rank:
        return
    click.echo()
    click.echo(compare([run.folder.path for run in runs]).text())
    folder = runs[0].folder.path.parent if runs else one.runs_folder
    click.echo(f"\nRuns lie in {folder}\nTensorBoard:  tensorboard --logdir '{folder}'\nAgain, any time:  mtcore compare '{folder}'")
    if failure:
        raise failure
