"""Things outside the house, by name: `module:attribute`."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from envs.errors import InputError, unknown


def load_attribute(name: str) -> Any:
    """What `module:attribute` names; the working directory is searched too, as `python -m` does.

    Raises:
        InputError: no such module or attribute, or the module can't be imported.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InputError(f"{name!r} is not of the form module:attribute")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"{name}: can't import {module_name} ({error})") from error
    if not hasattr(module, attribute):
        raise InputError(f"{name}: {unknown('attribute', attribute, (n for n in vars(module) if n[0] != '_'))}")
    return getattr(module, attribute)
