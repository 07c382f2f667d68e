"""One sub-layer of a model, to call by itself."""

from __future__ import annotations

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
    layer, found = model, Variables(*variables)
    for depth, name in enumerate(names):
        known = {name for tree in found for name, value in tree.items() if isinstance(value, dict)}
        known |= _sub_layers(layer).keys()
        layer, found = _sub_layers(layer).get(name), Variables(*(_subtree(tree, name) for tree in found))
        if layer is None and not any(found):
            raise InputError(f"part got {path!r}, wanted {_wanted('/'.join(names[:depth]), sorted(known))}")
    return found


def _wanted(above: str, known: list[str]) -> str:
    if not above:
        return f"one of {known}, or a path below"
    return f"one of {known}, which {above!r} holds" if known else f"nothing below {above!r}, which holds no sub-layers"


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
