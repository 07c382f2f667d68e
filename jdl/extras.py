"""Packages that only an extra installs, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """The module, for a ``purpose`` such as "plotting"; where it is missing, an error that says what to install.

    Raises:
        ModuleNotFoundError: naming the extra of jdl that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        message = f'{purpose} needs {package}, which is not installed: pip install "jdl[{extra}]"'
        raise ModuleNotFoundError(message, name=error.name) from error
