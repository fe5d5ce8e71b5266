"""How long work tells how far it is. This one is silent; the command line has one that prints."""

from __future__ import annotations

from typing import Iterable, Iterator, TypeVar

__all__ = ["Progress"]

T = TypeVar("T")


class Progress:
    """Silent progress; override `say` and `track`."""

    def say(self, line: str) -> None:
        """One line for the person who waits."""

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Yield `items`, showing how many of `total` are done."""
        yield from items
