"""mtcore: plugin-based multi-task, multi-dataset deep learning on audio.

    import mtcore

    experiment = mtcore.Experiment.from_file("experiment.toml")
    experiment.run()                              # what is missing is made, what exists is kept
    print(mtcore.compare([experiment.runs_folder]))

Each part alone: `mtcore.read` a dataset, `experiment.extract()`, `run.data().rows("train")` is a `torch.utils.data.Dataset`,
`run.model(data)` an `nn.Module` for your own loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .experiment.plan import Experiment
    from .experiment.run import Run
    from .plugin.registry import get_registry
    from .reading.dataset import read
    from .reporting.compare import compare

__all__ = ["Experiment", "Run", "compare", "get_registry", "read"]

_WHERE = {"Experiment": "experiment.plan", "Run": "experiment.run", "compare": "reporting.compare",
          "get_registry": "plugin.registry", "read": "reading.dataset"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import mtcore` and the command line stay light."""
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
