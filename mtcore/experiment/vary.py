"""`[vary]`: one experiment, many runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ExperimentError
from .file import check_among, override

__all__ = ["Variation", "expand"]


@dataclass(frozen=True)
class Variation:
    """One combination of varied values: `labels` for folders and tables, the file's content, and the datasets and tasks chosen."""

    labels: Mapping[str, str]
    data: Mapping[str, Any]
    datasets: tuple[str, ...]
    tasks: tuple[str, ...]

    @property
    def name(self) -> str:
        return "_".join(self.labels.values()) or "run"


def expand(data: Mapping[str, Any], datasets: Sequence[str], tasks: Sequence[str]) -> list[Variation]:
    """All combinations, in the order of the file."""
    given = data.get("vary", {})
    vary = dict(given)
    base = {key: value for key, value in data.items() if key != "vary"}
    subsets = [_subsets(vary.pop(key, None), names, key) for key, names in (("datasets", datasets), ("tasks", tasks))]
    axes = []
    for key, values in vary.items():
        if not isinstance(values, list) or not values:
            raise ExperimentError(f"vary.{key}: expected a list of values, found {values!r}")
        axes.append([(key, _label(value), _plain(value)) for value in values])
        labels = [label for _, label, _ in axes[-1]]
        if len(set(labels)) < len(labels):
            raise ExperimentError(f"vary.{key}: values need different names, found {', '.join(labels)}; name them with `as`")
    found = []
    for some_datasets, some_tasks, *values in itertools.product(*subsets, *axes):
        labels = {key: "+".join(some) for key, some in (("datasets", some_datasets), ("tasks", some_tasks)) if key in given}
        varied = base
        for key, label, value in values:
            labels[key] = label
            varied = override(varied, key, value)
        found.append(Variation(labels, varied, some_datasets, some_tasks))
    return found


def _subsets(value: Any, names: Sequence[str], path: str) -> list[tuple[str, ...]]:
    """"subsets", or a list of any of singles, pairs, all, leave-one-out and lists of names; each combination once."""
    names = tuple(names)
    if value is None:
        return [names]
    kinds = {"singles": [(name,) for name in names], "pairs": list(itertools.combinations(names, 2)), "all": [names],
             "leave-one-out": [tuple(n for n in names if n != name) for name in names] if len(names) > 1 else [],
             "subsets": [c for size in range(1, len(names) + 1) for c in itertools.combinations(names, size)]}
    found: dict[tuple[str, ...], None] = {}
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, list):
            if item not in list(kinds):
                raise ExperimentError(f"vary.{path}: expected {', '.join(kinds)} or lists of names; found {item!r}")
            found |= dict.fromkeys(kinds[item])
        else:
            check_among(item, names, f"vary.{path}")
            found[tuple(name for name in names if name in item)] = None
    return list(found)


def _label(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("as", value.get("use", value)))
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(value: Any) -> Any:
    return {key: inner for key, inner in value.items() if key != "as"} if isinstance(value, Mapping) else value
