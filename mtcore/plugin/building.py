"""A component from its class and the parameters that a file gives, checked, with the key path in every error."""

from __future__ import annotations

import dataclasses
import keyword
import math
import re
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from ..errors import ExperimentError, ParameterError, PluginError, at
from .interfaces import Component
from .loader import near
from .params import STEP_KEYS

__all__ = ["Parameter", "build", "converted", "parameters_of", "type_name"]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a component: what `param` was given, and the resolved type."""

    name: str
    type: Any
    required: bool
    default: Any
    help: str = ""
    unit: str = ""
    choices: tuple | None = None
    minimum: float | None = None
    maximum: float | None = None
    component: str | None = None


@cache
def parameters_of(cls: type[Component]) -> tuple[Parameter, ...]:
    """All parameters of a component's class; `PluginError` where it is not a frozen dataclass that the file can fill."""
    where = f"{cls.__module__}:{cls.__qualname__}"
    loose = [name for name, value in vars(cls).items() if isinstance(value, dataclasses.Field)]
    if loose or (dataclasses.is_dataclass(cls) and not cls.__dataclass_params__.frozen):
        raise PluginError(f"{where}: expected a class decorated with @dataclass(frozen=True, kw_only=True)")
    if not dataclasses.is_dataclass(cls):
        return ()
    try:
        types = typing.get_type_hints(cls)
    except (NameError, TypeError, AttributeError) as error:
        raise PluginError(f"{where}: the types of its parameters cannot be resolved: {error}") from error
    found = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        if field.name in STEP_KEYS or keyword.iskeyword(field.name):
            raise PluginError(f"{where}: no parameter may be called {field.name!r}; {', '.join(STEP_KEYS)} belong to steps")
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        known = {key: field.metadata[key] for key in ("help", "unit", "choices", "minimum", "maximum", "component") if key in field.metadata}
        found.append(Parameter(field.name, types[field.name], default is dataclasses.MISSING,
                               None if default is dataclasses.MISSING else default, **known))
    return tuple(found)


def build(cls: type[Component], values: Mapping[str, Any], name: str, path: str = "") -> Component:
    """An instance of `cls`, `name` in errors; `path` is the key path of `values`. Raises `ExperimentError`."""
    known = {parameter.name: parameter for parameter in parameters_of(cls)}
    key_path = lambda key: f"{path}.{key}" if path else key
    for key in values:
        if key not in known:
            raise ExperimentError(f"{key_path(key)}: {name} has no parameter {key!r}{near(str(key), known)}; "
                                  f"it takes {', '.join(known) or 'none'}")
    for key, parameter in known.items():
        if parameter.required and key not in values:
            raise ExperimentError(f"{key_path(key)}: missing; {name} needs it, {type_name(parameter.type)}"
                                  + (f": {parameter.help}" if parameter.help else ""))
    checked = {key: _checked(value, known[key], key_path(key), name) for key, value in values.items()}
    try:
        with at(path):
            return cls(**checked)
    except ParameterError:
        raise
    except Exception as error:
        raise ParameterError(f"{path or name}: {name} refuses its parameters: {type(error).__name__}: {error}") from error


def _checked(value: Any, parameter: Parameter, path: str, name: str) -> Any:
    if parameter.component:
        return value
    try:
        value = converted(value, parameter.type, path)
    except TypeError as error:
        raise PluginError(f"{path}: the parameter {parameter.name} of {name} has a type no file can give: {error}") from error
    for inner, item in _items(value, path):
        _check_choice(item, parameter, inner)
    return value


def _items(value: Any, path: str):
    """The single values of a parameter, each with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _items(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for i, item in enumerate(value):
            yield from _items(item, f"{path}[{i}]")
    elif value is not None:
        yield path, value


def _check_choice(value: Any, parameter: Parameter, path: str) -> None:
    choices, low, high = parameter.choices, parameter.minimum, parameter.maximum
    if choices is not None and value not in choices:
        raise ExperimentError(f"{path}: expected one of {', '.join(map(str, choices))}; found {value!r}"
                              + near(str(value), [str(choice) for choice in choices]))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, float) and not math.isfinite(value):
        raise ExperimentError(f"{path}: expected a finite number; found {value!r}")
    if number and not ((low is None or value >= low) and (high is None or value <= high)):
        limits = [f"{limit:g} or {word}" for limit, word in ((low, "more"), (high, "less")) if limit is not None]
        unit = f" {parameter.unit}" if parameter.unit else ""
        raise ExperimentError(f"{path}: expected {' and '.join(limits)}{unit}; found {value!r}")


def converted(value: Any, kind: Any, path: str) -> Any:
    """A file's value as this type, `ExperimentError` where it is of another: where msgspec says "Expected `int`, got `str` - at `$[0]`",
    "path[0]: expected int, found str"."""
    try:
        return msgspec.convert(value, type=kind, strict=True)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at ")
    place = re.sub(r"^.*\$|`$", "", place)
    if text.startswith("Invalid enum value") and not place:
        choices = [str(choice) for choice in typing.get_args(kind) if isinstance(choice, (str, int))]
        raise ExperimentError(f"{path}{place}: expected {type_name(kind)}, found {value!r}{near(str(value), choices)}")
    text = text.replace("`null`", "None").replace("`object`", "table").replace("`array`", "list").replace("| null", "or None")
    text = text.replace(", got ", ", found ").replace("`", "").replace("| array", "or list").replace(" | ", " or ")
    found = "" if place or "found" in text else f", found {value!r}"
    raise ExperimentError(f"{path}{place}: {text[:1].lower()}{text[1:]}{found}")


def type_name(kind: Any) -> str:
    """A type as one writes it: `list[int]`, `float | None`, one of "a", "b"."""
    if typing.get_origin(kind) is typing.Literal:
        return " | ".join(repr(choice) for choice in typing.get_args(kind))
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")
