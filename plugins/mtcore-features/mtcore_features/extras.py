"""Libraries that only an extra of this distribution installs."""

from __future__ import annotations

import importlib
from types import ModuleType

from mtcore.plugin import PluginError


def extra(name: str) -> ModuleType:
    """The library `name`, which the extra of the same name installs; `PluginError` says how where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PluginError(f"expected the library {name}, found none that can be imported ({error}); "
                          f'pip install "mtcore-features[{name}]"') from error
