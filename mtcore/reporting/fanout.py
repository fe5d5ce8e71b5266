"""One call to all reporters of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..plugin import Reporting

__all__ = ["Reporters"]


class Reporters(Reporting):
    """Calls each of `reporters` (by full name); one that raises is disabled and `warn` gets one line. Training goes on."""

    def __init__(self, reporters: Mapping[str, Reporting], warn: Callable[[str], None]):
        self.reporters, self.warn = dict(reporters), warn

    def _call(self, method: str, *arguments: Any) -> None:
        for name, reporter in list(self.reporters.items()):
            try:
                getattr(reporter, method)(*arguments)
            except Exception as error:  # whatever a stranger's reporter raises: figures are in metrics.jsonl anyway
                del self.reporters[name]
                self.warn(f"warning: reporter {name} failed and is disabled until the run is continued: "
                          f"{type(error).__name__}: {error}")

    def run_started(self, run: Mapping[str, Any]) -> None:
        self._call("run_started", run)

    def epoch_ended(self, epoch: int, figures: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        self._call("epoch_ended", epoch, figures, predictions)

    def run_ended(self, run: Mapping[str, Any]) -> None:
        self._call("run_ended", run)
