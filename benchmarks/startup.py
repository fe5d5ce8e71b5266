"""How long `mtcore list-plugins` and `mtcore --help` take beside `python -c pass`, in one environment.

    python benchmarks/startup.py [--rounds 15] [--distributions 300] [--plugins 10]

The environment is this one, with so many further distributions and plugins in a temporary folder, and modules compiled as an
installer leaves them. The commands take turns, so that what else the machine does meets all of them: a ratio is of one round.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HOOKS = """from mtcore.plugin import ReaderSpec, hookimpl


@hookimpl
def mtcore_register_readers():
    yield ReaderSpec("calls", "nowhere:Calls", "Calls")
"""


def fill(site: Path, distributions: int, plugins: int) -> None:
    """Distributions with metadata of usual length and console scripts, and plugins."""
    description = "\n".join(f"Line {i} of a description as long as many are." for i in range(150))
    for i in range(distributions + plugins):
        plugin = i >= distributions
        name = f"mtcore-p{i}" if plugin else f"other-{i}"
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        header = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: mtcore>=0.0.1\n"
        (info / "METADATA").write_text(f"{header}\n{description}")
        entry = f"[mtcore]\np{i} = mtcore_p{i}\n" if plugin else f"[console_scripts]\nx{i} = x:main\n"
        (info / "entry_points.txt").write_text(entry)
        if plugin:
            (site / f"mtcore_p{i}.py").write_text(HOOKS)


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--distributions", type=int, default=300)
    parser.add_argument("--plugins", type=int, default=10)
    options = parser.parse_args()
    commands = {"python -c pass": ["-c", "pass"], "mtcore --help": ["-m", "mtcore", "--help"],
                "mtcore list-plugins": ["-m", "mtcore", "list-plugins"]}
    with tempfile.TemporaryDirectory() as site, tempfile.TemporaryDirectory() as compiled:
        fill(Path(site), options.distributions, options.plugins)
        cleared = {key: value for key, value in os.environ.items() if key not in (
            "PYTHONDONTWRITEBYTECODE", "MTCORE_BLOCK", "MTCORE_PLUGINS", "MTCORE_STRICT_PLUGINS")}
        environment = {**cleared, "PYTHONPATH": site, "PYTHONPYCACHEPREFIX": compiled}
        for arguments in commands.values():  # compiles, and fills the file system's cache
            seconds(arguments, environment)
        times = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, arguments in commands.items():
                times[name].append(seconds(arguments, environment))
    print(f"{options.distributions} further distributions, {options.plugins} plugins, {options.rounds} rounds: median (range)")
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, times["python -c pass"])]
        print(f"{name:20} {median(values) * 1000:6.0f} ms ({min(values) * 1000:.0f} to {max(values) * 1000:.0f})"
              f" {median(ratios):6.1f} x ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
