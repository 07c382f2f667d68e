"""Selecting arrays by path: one mechanism for decay masks, freezing, learning rates, adapters and sharding.

A pattern is a glob over ``a/b/kernel``: ``*`` stands for one segment (or part of one, ``ln_*``), ``**`` for any
number. Of several patterns the first match wins, and a pattern that matches nothing is an error.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from jdl.check import InputError
from jdl.nn.settings import Tree, Variables


def paths(tree: Any) -> tuple[str, ...]:
    """The path of every leaf, ``("0/bias", "0/kernel", …)``."""
    return tuple(_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree))


def matches(pattern: str, path: str) -> bool:
    """Whether a path pattern fits a whole path."""
    return _fits(tuple(pattern.split("/")), tuple(path.split("/")))


def select(*patterns: str) -> Callable[[Any], Any]:
    """A function from a tree to booleans of its shape, true where a pattern matches: what optax takes as a mask.

    >>> optax.adamw(1e-3, mask=jdl.select("**/kernel"))

    Raises:
        InputError: a pattern matches nothing.
    """
    return functools.partial(_label, rules=tuple((pattern, True) for pattern in patterns), default=False)


def label(rules: Mapping[str, Any], default: Any = None) -> Callable[[Any], Any]:
    """A function from a tree to labels of its shape, by the first pattern that matches: for ``optax.multi_transform``.

    >>> optax.multi_transform({"slow": ..., "fast": ...}, jdl.label({"encoder/**": "slow", "**": "fast"}))

    Raises:
        InputError: a pattern matches nothing, or a path is left without a label and there is no ``default``.
    """
    return functools.partial(_label, rules=tuple(rules.items()), default=default)


def freeze(variables: Variables, patterns: str | Iterable[str]) -> Variables:
    """Move the parameters that match from ``params`` to ``state``: nothing trains, decays or keeps moments for them."""
    params, state = variables
    moved, kept = _split(params, patterns)
    return Variables(kept, _join(state, moved))


def unfreeze(variables: Variables, patterns: str | Iterable[str]) -> Variables:
    """Move the arrays that match from ``state`` back to ``params``. Name parameters only."""
    params, state = variables
    moved, kept = _split(state, patterns)
    return Variables(_join(params, moved), kept)


def _label(tree: Any, *, rules: tuple[tuple[str, Any], ...], default: Any) -> Any:
    names = paths(tree)
    for pattern, _ in rules:
        _check_pattern(pattern, names)
    labels = [next((value for pattern, value in rules if matches(pattern, name)), default) for name in names]
    if None in labels:
        raise InputError(
            f"no pattern of {[pattern for pattern, _ in rules]} matches {names[labels.index(None)]!r}; add '**' last"
        )
    return jax.tree.unflatten(jax.tree.structure(tree), labels)


def _check_pattern(pattern: str, names: tuple[str, ...]) -> None:
    if not isinstance(pattern, str):
        raise InputError(f"pattern got {pattern!r}, wanted a string such as '**/kernel'")
    if not any(matches(pattern, name) for name in names):
        raise InputError(f"pattern {pattern!r} matches none of {len(names)} paths; {_near(pattern, names)}")


def _near(pattern: str, names: tuple[str, ...]) -> str:
    """What may have been meant: all below a sub-layer, a name at any depth, or a path that is spelt alike."""
    whole = pattern.removesuffix("/").removesuffix("/*")
    for wider in (f"{whole}/**", f"**/{whole}", f"**/{whole}/**"):
        if any(matches(wider, name) for name in names):
            return f"did you mean {wider!r}?"
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
    return f"near it: {', '.join(near) or 'the tree is empty'}"


def _split(tree: Tree, patterns: str | Iterable[str]) -> tuple[Tree, Tree]:
    """The arrays that match, and the rest, as nested dicts without empty branches."""
    chosen = select(*((patterns,) if isinstance(patterns, str) else patterns))(tree)
    return _keep(tree, chosen, True), _keep(tree, chosen, False)


def _keep(tree: Tree, chosen: Tree, wanted: bool) -> Tree:
    kept = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            if below := _keep(value, chosen[name], wanted):
                kept[name] = below
        elif chosen[name] is wanted:
            kept[name] = value
    return kept


def _join(a: Tree, b: Tree) -> Tree:
    both = {name: _join(a[name], b[name]) for name in a.keys() & b.keys()}
    return a | b | both


@functools.lru_cache(maxsize=65536)
def _fits(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return _fits(pattern[1:], path) or (bool(path) and _fits(pattern, path[1:]))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and _fits(pattern[1:], path[1:])


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
