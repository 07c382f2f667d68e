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
from jdl.nn.net import Net, Scope, merge
from jdl.nn.probing import Recording, Seen
from jdl.nn.settings import Param, Settings, Variables, check_variables

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
        InputError: the model holds no RadialBasis, one has more units than examples or fewer than 3, or one runs in
            ``nn.Repeat``, ``nn.Ensemble`` or a jax transform within a forward.
    """
    check_variables(variables)
    options = jax.tree.map(lambda x: jnp.asarray(x) if check.is_array(x) else x, options)

    @jax.jit  # on many examples, only what these layers get is kept
    def radial(variables: Variables, inputs: tuple[Any, ...]) -> list[Seen]:
        recorder = _Uses()
        scope = Scope(train=False, key=None, recorder=recorder, stores=True)
        Net(model, (), scope, *variables)(*inputs, **options)
        return recorder.seen()

    abstract = jax.eval_shape(radial, variables, inputs)
    if not abstract:
        raise check.InputError(f"with_centres got {type(model).__name__}, which runs no nn.RadialBasis layer")
    paths = tuple(dict.fromkeys(use.path for use in abstract))
    for path in paths:
        _check_examples([use for use in abstract if use.path == path])
    for index, path in enumerate(paths):  # a later one sees what those before it give with their new centres
        uses = [use for use in radial(variables, inputs) if use.path == path]
        layer: Any = uses[0].layer
        rows = jnp.concatenate([x.reshape(-1, x.shape[-1]) for use in uses for x in use.inputs])
        centres = F.kmeans(jax.random.fold_in(key, index), rows, layer.units)
        found = {"centres": centres, "log_widths": jnp.log(F.neighbour_widths(centres))}
        variables = Variables(*(_replaced(tree, path, found) for tree in variables))
    return variables


class _Uses(Recording):
    """The uses of RadialBasis in one pass."""

    def start(self, path: str, layer: Settings, inputs: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        call, inputs = super().start(path, layer, inputs)
        if call < 0 and isinstance(layer, RadialBasis):
            raise check.InputError(
                f"with_centres got {layer} in nn.Repeat, nn.Ensemble or a jax transform of your own, and copies of a "
                "layer cannot be set at once; stack the variables of an Ensemble's members, each with its centres, and "
                "write nn.Chain in place of nn.Repeat",
                path,
            )
        return call, inputs

    def seen(self) -> list[Seen]:
        return [dataclasses.replace(use, output=None) for use in super().seen() if isinstance(use.layer, RadialBasis)]


def _check_examples(uses: list[Seen]) -> None:
    """A layer gets as many examples as it has units, and has enough units for a width."""
    layer: Any = uses[0].layer
    count = sum(math.prod(x.shape[:-1]) for use in uses for x in use.inputs)
    if not 3 <= layer.units <= count:
        fix = "a width is the distance to two other centres" if layer.units < 3 else "give more examples"
        wanted = f"wanted 3 to {count} units, as many as there are examples; {fix}"
        raise check.InputError(f"with_centres got {count} examples for {layer}, {wanted}", uses[0].path)


def _replaced(tree: Any, path: str, found: dict[str, Array]) -> Any:
    """``tree`` with those of the arrays that it holds: the trained stand in params, the frozen in state."""
    parts = tuple(part for part in path.split("/") if part)
    here = tree
    for part in parts:
        here = here.get(part, {})
    held = {name: value for name, value in found.items() if name in here}
    return merge(tree, {parts: held}) if held else tree
