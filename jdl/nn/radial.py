"""The layer whose units answer to what is near their centres, and centres taken from data."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jdl import check
from jdl.nn import functional as F
from jdl.nn import init, inputs
from jdl.nn.core import Layer
from jdl.nn.net import Net, merge
from jdl.nn.probing import Seen, probe
from jdl.nn.settings import Param, Variables

Array = jax.Array


class RadialBasis(Layer):
    """Gaussian units exp(-||x - c||² / 2σ²): ``[..., D]`` to ``[..., units]``, each between 0 and 1.

    Parameters: ``centres [units, D]`` c (by default standard normal) and ``log_widths [units]``, the logarithms of σ,
    so that σ > 0 whatever training does (by default those of √D, about the distance at which normalised inputs lie).
    D is read off the first input. `with_centres` takes both from data. More in `functional.radial_basis`.
    """

    _casts = True  # distances are differences of large numbers: float32, also within nn.Precision

    units: int
    _: dataclasses.KW_ONLY
    centre_init: init.Initializer = init.normal(1.0)
    log_width_init: init.Initializer | None = None

    def __post_init__(self) -> None:
        inputs.counts(self, "units")

    def params(self, x: Array) -> dict[str, Param]:
        size = inputs.channels(x, "[..., D]")
        log_width_init = self.log_width_init or init.constant(0.5 * math.log(size))
        return {
            "centres": Param((self.units, size), self.centre_init),
            "log_widths": Param((self.units,), log_width_init),
        }

    def forward(self, net: Net, x: Array) -> Array:
        return F.radial_basis(x, net.centres, net.log_widths)


def with_centres(model: Layer, variables: Variables, /, *inputs: Any, key: Array, **options: Any) -> Variables:
    """Variables whose RadialBasis layers have their centres where the data is.

    ``inputs`` are the model's, as many examples as there are to learn from. The centres are those of
    `functional.kmeans` over what the layer then gets, the widths `functional.neighbour_widths` of these. Train both
    from there, or hold them and train the rest:

    >>> variables = nn.with_centres(model, model.init(key, x), x, key=key)
    >>> variables = jdl.freeze(variables, ["**/centres", "**/log_widths"])
    >>> jdl.fit(model, loss, optimizer, data, variables=variables)

    Raises:
        InputError: the model holds no RadialBasis, or one has more units than examples or fewer than 3.
    """

    @jax.jit  # on many examples, only what these layers get is kept
    def radial(variables: Variables, inputs: tuple[Any, ...]) -> list[Seen]:
        seen = probe(model, variables, *inputs, **options)[2]
        return [dataclasses.replace(use, output=None) for use in seen if isinstance(use.layer, RadialBasis)]

    paths = dict.fromkeys(use.path for use in jax.eval_shape(radial, variables, inputs))
    if not paths:
        raise check.InputError(f"with_centres got {type(model).__name__}, which runs no nn.RadialBasis layer")
    for index, path in enumerate(paths):  # a later one sees what those before it give with their new centres
        uses = [use for use in radial(variables, inputs) if use.path == path]
        layer: Any = uses[0].layer
        rows = jnp.concatenate([x.reshape(-1, x.shape[-1]) for use in uses for x in use.inputs])
        centres = F.kmeans(jax.random.fold_in(key, index), rows, layer.units)
        found = {"centres": centres, "log_widths": jnp.log(F.neighbour_widths(centres))}
        variables = Variables(*(_replaced(tree, path, found) for tree in variables))
    return variables


def _replaced(tree: Any, path: str, found: dict[str, Array]) -> Any:
    """``tree`` with those of the arrays that it holds: the trained stand in params, the frozen in state."""
    parts = tuple(part for part in path.split("/") if part)
    here = tree
    for part in parts:
        here = here.get(part, {})
    held = {name: value for name, value in found.items() if name in here}
    return merge(tree, {parts: held}) if held else tree
