"""The command line. Commands are imported when they are called: `mtcore --help` imports click and nothing else."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import click

from ..errors import MtcoreError

__all__ = ["COMMANDS", "Settings", "main", "settings"]

COMMANDS: dict[str, tuple[str, str]] = {
    "list-plugins": ("mtcore.cli.listing:list_plugins_command", "Plugins: version, state, what each provides, what is wrong."),
    "list": ("mtcore.cli.listing:list_command", "Components by kind, one line each."),
    "info": ("mtcore.cli.listing:info_command", "One component: parameters, tasks, licence, layout."),
    "new-plugin": ("mtcore.cli.plugins:new_plugin_command", "A plugin project that installs, passes its tests and is listed."),
    "check-plugin": ("mtcore.cli.plugins:check_plugin_command", "The conformance kit against an installed plugin."),
    "check": ("mtcore.cli.experiment:check_command", "Everything that can go wrong with an experiment, before hours are spent."),
    "extract": ("mtcore.cli.experiment:extract_command", "Fill the feature stores of an experiment."),
    "run": ("mtcore.cli.experiment:run_command", "Do what is missing, skip what exists, continue what was cut off."),
    "compare": ("mtcore.cli.compare:compare_command", "Tables of run folders: mean and deviation over folds, gain over single task."),
    "predict": ("mtcore.cli.predict:predict_command", "The model of a run on new recordings, with the run's own preparation."),
    "cache": ("mtcore.cli.cache:cache_command", "Feature stores: list, show, prune, verify."),
    "demo": ("mtcore.cli.experiment:demo_command", "A complete small experiment on generated sound, in under a minute."),
}
"""By name: "module:function" and the line that `mtcore --help` shows."""


@dataclass
class Settings:
    """What every command knows. None: as the command sees fit."""

    cache: Path | None = None
    runs: Path | None = None
    traceback: bool = False

    def registry(self):
        """The process's registry; --block is in the environment already."""
        from ..plugin.registry import get_registry  # pluggy; --help does without

        return get_registry()


def settings() -> Settings:
    """Of the command that is running."""
    return click.get_current_context().ensure_object(Settings)


def _note(ctx: click.Context, option: click.Parameter, value) -> None:
    """Options may stand before and after the command's name; the last one given holds, and any is above the environment."""
    settings = ctx.ensure_object(Settings)
    given = ctx.get_parameter_source(option.name) is click.core.ParameterSource.COMMANDLINE
    if option.name == "block":
        _block(ctx, value)
    elif value and (given or not getattr(settings, option.name)):
        setattr(settings, option.name, value)


def _block(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Through the environment, so that worker processes block the same plugins."""
    if not names:
        return
    from ..plugin.registry import get_registry  # pluggy; --help does without

    before = os.environ.get("MTCORE_BLOCK")

    def restore():
        os.environ.pop("MTCORE_BLOCK", None)
        if before is not None:
            os.environ["MTCORE_BLOCK"] = before
        get_registry.cache_clear()

    ctx.find_root().call_on_close(restore)
    os.environ["MTCORE_BLOCK"] = ",".join(filter(None, (before, *names)))
    get_registry.cache_clear()


def _common() -> list[click.Option]:
    shared = {"callback": _note, "expose_value": False}
    return [
        click.Option(["--block"], multiple=True, metavar="NAME", help="Do not import this plugin (also MTCORE_BLOCK).", **shared),
        click.Option(["--cache"], type=click.Path(file_okay=False, path_type=Path), envvar="MTCORE_CACHE", metavar="DIR",
                     help="Folder of the feature stores (also MTCORE_CACHE).", **shared),
        click.Option(["--runs"], type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
                     help="Folder of the runs; default: runs beside the experiment file.", **shared),
        click.Option(["--traceback"], is_flag=True, help="Show where an error came from.", **shared)]


def _with_common(command: click.Command) -> click.Command:
    if not any(option.name == "traceback" for option in command.params):
        command.params.extend(_common())
    for inner in getattr(command, "commands", {}).values():
        _with_common(inner)
    return command


class Commands(click.Group):
    """Imports a command when it is called, and turns errors into a few lines and an exit code."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        module, _, function = COMMANDS[name][0].partition(":")
        return _with_common(getattr(import_module(module), function))

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx):
        if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show must not end a listing
            sys.stdout.reconfigure(errors="backslashreplace")
        if "WORLD_SIZE" in os.environ:
            signal.signal(signal.SIGINT, _interrupt_once)
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted" + ("; the same command goes on" if ctx.invoked_subcommand in ("extract", "run") else ""), err=True)
            ctx.exit(130)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # click ends quietly when the reader of our output has gone
            _tell(error, ctx.ensure_object(Settings).traceback)
            ctx.exit(error.exit_code if isinstance(error, MtcoreError) else 1)


def _interrupt_once(*_):
    """torchrun passes an interrupt on to processes that have had it from the terminal; it must not disturb their ending."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _tell(error: Exception, with_traceback: bool) -> None:
    if with_traceback:
        import traceback

        click.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    if isinstance(error, MtcoreError):
        click.echo(f"error: {error}", err=True)
    else:
        click.echo(f"error: {type(error).__name__}: {error}", err=True)
        if not with_traceback:
            click.echo("This was not foreseen. Run again with --traceback to see where it came from.", err=True)


main = Commands("mtcore", params=_common(), help="Multi-task, multi-dataset deep learning on audio.",
                context_settings={"help_option_names": ["-h", "--help"]})
click.version_option(package_name="mtcore", prog_name="mtcore")(main)
