"""One sub-layer of a model, to call by itself."""

from __future__ import annotations

import functools
from typing import Any

from jdl.check import InputError
from jdl.nn.containers import _Around, _Several
from jdl.nn.net import _subtree
from jdl.nn.settings import Settings, Variables, check_variables


def part(model: Settings, variables: Variables, path: str) -> Variables:
    """The variables of one sub-layer, to call it by itself: ``model.decoder(nn.part(model, variables, "decoder"), z)``.

    ``path`` is a name, or several as in ``"encoder/0"``. Frozen arrays stay in the state; a sub-layer that holds none
    gets empty variables.

    Raises InputError where the model has no such sub-layer.
    """
    check_variables(variables)
    names = path.split("/")
    found = Variables(*(functools.reduce(_subtree, names, tree) for tree in variables))
    if not any(found) and functools.reduce(lambda layer, name: _sub_layers(layer).get(name), names, model) is None:
        known = {name for tree in variables for name, value in tree.items() if isinstance(value, dict)}
        raise InputError(
            f"part got {path!r}, wanted one of {sorted(known | _sub_layers(model).keys())}, or a path below"
        )
    return found


def _sub_layers(layer: Any) -> dict[str, Any]:
    """Those that stand in its settings, by name; others are made in its forward, and known by their arrays alone."""
    if isinstance(layer, _Around):
        return _sub_layers(layer.layer)
    if isinstance(layer, _Several):
        return dict(layer.entries)
    if isinstance(layer, tuple):
        return {str(index): value for index, value in enumerate(layer)}
    fields = layer.__dict__.items() if isinstance(layer, Settings) else ()
    return {name: value for name, value in fields if isinstance(value, Settings) or _is_layers(value)}


def _is_layers(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(one, Settings) for one in value)
