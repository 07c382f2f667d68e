"""Settings fixed in advance, as a value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jdl import check


@dataclass(frozen=True, repr=False)
class Configured:
    """A loss or metric with some of its keywords fixed; made by ``configured``. Equal settings are equal values."""

    function: Callable[..., Any]
    settings: tuple[tuple[str, Any], ...]
    name: str

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self.function(*inputs, **(dict(self.settings) | options))

    @property
    def __name__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{self.function.__name__}({', '.join(f'{key}={value!r}' for key, value in self.settings)})"


def configured(function: Callable[..., Any], *, name: str | None = None, **settings: Any) -> Configured:
    """``function`` with ``settings`` fixed: ``configured(huber, delta=2.0)``. Lists become tuples.

    ``name`` is what a metric is logged under, the function's own unless given. Raises ``InputError`` for a setting that
    the function does not have or that cannot be hashed, and for a function without a name.
    """
    if isinstance(function, Configured):
        settings = dict(function.settings) | settings
        name, function = name or function.name, function.function
    own_name = getattr(function, "__name__", "<lambda>")
    if own_name == "<lambda>":
        raise check.InputError(f"configured got {check.describe(function)}, wanted a function with a name; use def")
    return Configured(function, tuple(sorted(_checked(own_name, function, settings).items())), name or own_name)


def _checked(own_name: str, function: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY or p.name == "reduction"]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    for key, value in settings.items():
        if key not in known and not takes_any:
            raise check.InputError(f"{own_name} has no setting {key!r}, it has {', '.join(known) or 'none'}")
        try:
            hash(value)
        except TypeError:
            fix = "use a number, a string or a tuple of them"
            raise check.InputError(
                f"{own_name} got {key}={check.describe(value)}, wanted something hashable; {fix}"
            ) from None
    return settings
