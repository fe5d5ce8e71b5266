"""Parameters of components: fields of frozen keyword-only dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Any, Sequence

__all__ = ["STEP_KEYS", "param"]

STEP_KEYS = ("use", "id", "p", "parts", "fit")
"""Keys that every step knows in an experiment; no parameter may be called so."""


def param(default: Any = dataclasses.MISSING, *, help: str, unit: str = "", choices: Sequence[Any] | None = None,
          minimum: float | None = None, maximum: float | None = None) -> Any:
    """A dataclass field with what `mtcore info` shows and the registry checks. Without a default it is required.

    The type is the field's annotation; lists come in as lists, tuples as tuples, and a whole number is a valid float.
    """
    metadata = {"help": help, "unit": unit, "choices": None if choices is None else tuple(choices),
                "minimum": minimum, "maximum": maximum}
    if isinstance(default, (list, dict, set)):
        frozen = default
        return dataclasses.field(default_factory=lambda: type(frozen)(frozen), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
