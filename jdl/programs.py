"""Compiled functions that know how often they were compiled, and why."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import jax

from jdl import check


class CompilationWarning(UserWarning):
    """A program of a run was compiled once more than it needs to be; the message says which argument changed."""


class Program:
    """A jitted function that remembers what it was traced for.

    ``name`` is what reports call it. Further arguments are those of ``jax.jit``.
    """

    def __init__(self, function: Callable[..., Any], name: str, **options: Any):
        self.name = name
        self.traces: list[dict[str, str]] = []
        self.jitted = jax.jit(self._recorded(function), **options)

    def _recorded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function, assigned=("__doc__",), updated=())
        def recorded(*arguments: Any) -> Any:
            self.traces.append(_signature(arguments))  # runs while tracing, so once for each compilation
            return function(*arguments)

        recorded.__name__ = recorded.__qualname__ = self.name
        return recorded

    def __call__(self, *arguments: Any) -> Any:
        return self.jitted(*arguments)

    def what_changed(self) -> str:
        """How the last trace differs from the one before, argument by argument."""
        if len(self.traces) < 2:
            return f"{self.name} was compiled {len(self.traces)} times"
        old, new = self.traces[-2:]
        paths = [path for path in old.keys() | new.keys() if old.get(path) != new.get(path)]
        lines = [f"{path}: {old.get(path, 'absent')} became {new.get(path, 'absent')}" for path in sorted(paths)]
        return f"{self.name} was compiled again: " + (
            "; ".join(lines) or "the same arguments, another jax setting or device"
        )


class Compilations:
    """Calls programs, and counts by name in ``counts`` what that compiles; more than once is a warning."""

    def __init__(self, counts: dict[str, int]):
        self.counts = counts

    def __call__(self, program: Program, *arguments: Any) -> Any:
        """``program(*arguments)``."""
        before = len(program.traces)
        result = program(*arguments)
        if len(program.traces) > before:
            self.counts[program.name] = self.counts.get(program.name, 0) + 1
            if self.counts[program.name] > 1:
                warnings.warn(program.what_changed(), CompilationWarning, stacklevel=2)
        return result


def cached_program(build: Callable[..., Program]) -> Callable[..., Program]:
    """Keep the programs that ``build`` made for equal arguments, so that an equal model does not compile again."""
    keep = functools.lru_cache(maxsize=32)(build)

    @functools.wraps(build)
    def made(*arguments: Hashable) -> Program:
        try:
            hash(arguments)
        except TypeError:  # a factor that is an array, say
            return build(*arguments)
        return keep(*arguments)

    return made


def _signature(arguments: tuple[Any, ...]) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(arguments)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _describe(leaf) for path, leaf in leaves}


def _describe(leaf: Any) -> str:
    return check.describe(leaf) + (" (weak type)" if getattr(leaf, "weak_type", False) else "")
