"""jdl: models as pure functions, training as one compiled program.

Four kinds of value, each with transformations into the same kind: a **layer**, an **objective**, a **gradient** and a
**step**. ``__init__.pyi`` is the table of contents; a name loads when first used, so that ``import jdl`` costs little
more than ``import jax``.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0.dev0"


def _contents() -> dict[str, tuple[str, str]]:
    """Public names and the modules that define them, as the table of contents imports them."""
    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    lines = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: (str(line.module), alias.name) for line in lines for alias in line.names}


_CONTENTS = _contents()
__all__ = sorted(_CONTENTS)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _CONTENTS:
        raise AttributeError(f"module 'jdl' has no attribute {name!r}")
    module, attribute = _CONTENTS[name]
    inside = module == __name__
    value = importlib.import_module(f"jdl.{name}") if inside else getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
