"""How long work tells how far it is. This one is silent; the command line has one that prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

__all__ = ["Progress", "in_parallel"]

T = TypeVar("T")


class Progress:
    """Silent progress; override `say` and `track`."""

    def say(self, line: str) -> None:
        """One line for the person who waits."""

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Yield `items`, showing how many of `total` are done."""
        yield from items


def in_parallel(tasks: Iterable[Any], jobs: int | None, return_as: str = "generator_unordered", prefer: str | None = "threads",
                **options: Any) -> Iterable[Any]:
    """Results of tasks for joblib, each when it is there; from backends that give none before the last (Ray's), all at once."""
    from joblib import Parallel
    from joblib.parallel import get_active_backend

    one_by_one = get_active_backend(prefer=prefer)[0].supports_return_generator
    return Parallel(n_jobs=jobs, prefer=prefer, return_as=return_as if one_by_one else "list", **options)(tasks)
