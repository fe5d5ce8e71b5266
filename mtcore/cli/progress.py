"""Progress for people: one line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

from ..progress import Progress

__all__ = ["TerminalProgress"]

T = TypeVar("T")


class TerminalProgress(Progress):
    """`say` prints to `out` (standard output); `track` shows count, rate and time left on `stream` (standard error)."""

    def __init__(self, stream: TextIO | None = None, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.stream, self.out, self.clock = stream or sys.stderr, out or sys.stdout, clock
        self.live = self.stream.isatty()
        self.every = 0.1 if self.live else 10.0
        """seconds between two lines"""

    def say(self, line: str) -> None:
        if self.live:
            self._write("\r\x1b[K")
        print(line, file=self.out, flush=True)

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        if not total:
            yield from items
            return
        start = last = self.clock()
        done = 0
        if self.live:
            self._show(label, done, total, 0.0)
        try:
            for item in items:
                yield item
                done += 1
                now = self.clock()
                if now - last >= self.every:
                    last = now
                    self._show(label, done, total, now - start)
        finally:  # also when the work was broken off: what follows begins on a line of its own
            self._show(label, done, total, self.clock() - start, ended=True)

    def _show(self, label: str, done: int, total: int, seconds: float, ended: bool = False) -> None:
        line = f"{label}: {done} of {total}"
        if done and seconds > 0:
            line += f", {done / seconds:.3g}/s"
        if ended:
            line += f", {_clock(seconds)} in all"
        elif 0 < done < total:
            line += f", {_clock(seconds * (total - done) / done)} left"
        self._write(f"\r\x1b[K{line}" + "\n" * ended if self.live else line + "\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
