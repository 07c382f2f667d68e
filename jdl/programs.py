"""Compiled functions that know how often they were compiled, how long that took, and why."""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import jax

from jdl import check

PHASES = {  # what jax calls the phases of a compilation
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}

# Settings of jax that are part of a program: with another value the same call compiles again.
JAX_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_debug_nans",
    "jax_default_device",
)


class CompilationWarning(UserWarning):
    """A program of a run was compiled once more than it needs to be; the message says which argument changed."""


class TooManyCompilations(RuntimeError):
    """A run compiled more programs than ``max_compilations`` allows; the message says which one and what changed."""


class Program:
    """A jitted function that remembers what it was traced for.

    ``name`` is what reports call it. Further arguments are those of ``jax.jit``.
    """

    def __init__(self, function: Callable[..., Any], name: str, **options: Any):
        self.name = name
        self.traces: list[dict[str, str]] = []
        self.made_of: tuple[Any, ...] = ()
        self.previous: Program | None = None
        self.jitted = jax.jit(self._recorded(function), **options)

    def _recorded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function, assigned=("__doc__",), updated=())
        def recorded(*arguments: Any) -> Any:
            self.traces.append(_signature(arguments))  # runs while tracing, so once for each compilation
            if (counting := getattr(_active, "compilations", None)) is not None:
                counting.started(self)
            return function(*arguments)

        recorded.__name__ = recorded.__qualname__ = self.name
        return recorded

    def __call__(self, *arguments: Any) -> Any:
        return self.jitted(*arguments)

    def what_changed(self) -> str:
        """How the last trace differs from the one before, argument by argument.

        A program that was traced once is held against the last one of its name: which static settings differ.
        """
        if len(self.traces) > 1:
            lines = _differences(*self.traces[-2:])
            return f"{self.name} was compiled again: " + ("; ".join(lines) or "the same arguments, on another device")
        if self.traces and self.previous is not None:
            lines = list(_static_differences(self.previous.made_of, self.made_of, ""))
            return f"{self.name} was compiled for other settings than the last program of its name: " + (
                "; ".join(lines) or "a lambda, partial or array in them is new each time; name it once"
            )
        return f"{self.name} was compiled {len(self.traces)} times"


class Compilations:
    """Calls programs, and keeps what that compiles: ``counts`` by name, and ``seconds`` by name and phase.

    A program compiled twice is a warning, more than ``limit`` compilations in all are an error.
    """

    def __init__(self, counts: dict[str, int], seconds: dict[str, dict[str, float]], limit: int | None = None):
        self.counts, self.seconds, self.limit = counts, seconds, limit
        self.total = 0
        self._program = ""
        _listen()

    def __call__(self, program: Program, *arguments: Any) -> Any:
        """``program(*arguments)``.

        Raises:
            TooManyCompilations: while tracing, before anything is compiled or an array given up.
        """
        outer, _active.compilations = getattr(_active, "compilations", None), self
        self._program = ""
        try:
            return program(*arguments)
        finally:
            _active.compilations = outer

    def started(self, program: Program) -> None:
        """A trace of this program has begun."""
        self._program = program.name
        self.total += 1
        self.counts[program.name] = self.counts.get(program.name, 0) + 1
        if self.limit is not None and sum(self.counts.values()) > self.limit:
            counted = ", ".join(f"{name} {count}" for name, count in self.counts.items())
            raise TooManyCompilations(f"{program.what_changed()} (max_compilations={self.limit}; compiled: {counted})")
        if self.counts[program.name] > 1:
            warnings.warn(program.what_changed(), CompilationWarning, stacklevel=2)

    def timed(self, phase: str, name: str, seconds: float) -> None:
        """A phase of compiling the function of this name took so long."""
        if self._program and name in (self._program, f"jit({self._program})"):
            spent = self.seconds.setdefault(self._program, dict.fromkeys(PHASES.values(), 0.0))
            spent[phase] += seconds


_active = threading.local()  # the Compilations that is calling a program in this thread


@functools.cache
def _listen() -> None:
    """Hear of every phase of every compilation; jax keeps its listeners for good, so there is one for all runs."""

    def heard(event: str, duration_secs: float, **about: Any) -> None:
        counting = getattr(_active, "compilations", None)
        if counting is not None and event in PHASES:
            counting.timed(PHASES[event], str(about.get("fun_name", "")), duration_secs)

    jax.monitoring.register_event_duration_secs_listener(heard)


def keep_compiled(folder: Path) -> bool:
    """Let jax keep what it compiles in ``folder``, however quick it was, so that the next process need not.

    Only where the user has neither set a folder nor turned the cache off; returns whether this changed that.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        return False
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return True


def cached_program(build: Callable[..., Program]) -> Callable[..., Program]:
    """Keep the programs that ``build`` made for equal arguments, so that an equal model does not compile again."""
    last: dict[str, Program] = {}

    def built(*arguments: Any) -> Program:
        program = build(*arguments)
        program.made_of, program.previous = arguments, last.get(program.name)
        if program.previous is not None:
            program.previous.previous = None  # one step back is enough, and the rest may be freed
        last[program.name] = program
        return program

    keep = functools.lru_cache(maxsize=32)(built)

    @functools.wraps(build)
    def made(*arguments: Hashable) -> Program:
        try:
            hash(arguments)
        except TypeError:  # a factor that is an array, say
            return built(*arguments)
        return keep(*arguments)

    return made


def _signature(arguments: tuple[Any, ...]) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(arguments)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): _describe(leaf) for path, leaf in leaves}
    return arrays | {f"setting {name}": str(getattr(jax.config, name, None)) for name in JAX_SETTINGS}


def _describe(leaf: Any) -> str:
    return check.describe(leaf) + (" (weak type)" if getattr(leaf, "weak_type", False) else "")


def _differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    paths = [path for path in old.keys() | new.keys() if old.get(path) != new.get(path)]
    return [f"{path}: {old.get(path, 'absent')} became {new.get(path, 'absent')}" for path in sorted(paths)]


def _static_differences(old: Any, new: Any, path: str) -> Iterator[str]:
    """Where two static values differ, field by field."""
    if old == new:
        return
    if type(old) is type(new) and dataclasses.is_dataclass(old):
        for field in dataclasses.fields(old):
            below = f"{path}.{field.name}" if path else field.name
            yield from _static_differences(getattr(old, field.name), getattr(new, field.name), below)
    elif isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        names = getattr(old, "_fields", range(len(old)))
        for name, a, b in zip(names, old, new, strict=True):
            yield from _static_differences(a, b, f"{path}.{name}" if path else f"{name}")
    elif repr(old) != repr(new) and not callable(old):
        yield f"{path}: {old!r} became {new!r}"
    else:
        yield f"{path}: another {type(new).__name__} of the same look; a function made anew each time is a new value"
