"""Parameters of components: fields of frozen keyword-only dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

__all__ = ["STEP_KEYS", "param"]

STEP_KEYS = ("use", "id", "p", "parts", "fit")
"""Keys that every step knows in an experiment; no parameter may be called so."""


def param(default: Any = dataclasses.MISSING, *, help: str, unit: str = "", choices: Sequence[Any] | None = None,
          minimum: float | None = None, maximum: float | None = None, component: str | None = None) -> Any:
    """A dataclass field with what `mtcore info` shows and the registry checks. Without a default it is required.

    The type is the field's annotation; lists come in as lists, tuples as tuples, and a whole number is a valid float. `component` is a
    kind ("trunk"): the parameter is a component itself, given as anywhere in a file, and the field holds it as `Named`.
    """
    metadata = {"help": help, "unit": unit, "choices": None if choices is None else tuple(choices),
                "minimum": minimum, "maximum": maximum, "component": component}
    if isinstance(default, (list, dict, set)):
        frozen = default
        return dataclasses.field(default_factory=lambda: type(frozen)(frozen), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
