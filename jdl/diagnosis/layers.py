"""What layers do with one batch: units that are dead or saturated, gradients that shrink or grow on the way back."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdl import nn
from jdl.diagnosis.findings import DEAD, EXPLODING, NO_GRADIENT, SATURATED, VANISHING, Finding
from jdl.nn.functional import ACTIVATIONS
from jdl.nn.paths import paths
from jdl.nn.probing import Seen, probe, zero_shifts
from jdl.nn.settings import Function, Settings, Tree, Variables
from jdl.objectives import Batch, Objective, Supervised, masked, model_inputs, select_from
from jdl.programs import Program, cached_program

Array = jax.Array

SHARE = 0.5  # of a layer's units; a quarter of a healthy ReLU layer may be dead for one batch, deep down
FLAT = 0.05  # a derivative of a sigmoid (at most 0.25) or tanh (at most 1) below it is saturated
MOST = 0.5  # of the examples, for a unit to be saturated
RATIO = 1e3  # between the norms of the gradient at the outputs of the first and of the last layer with parameters

_RELU = (jax.nn.relu, jax.nn.relu6, nn.relu)
_SIGMOIDAL = {
    jax.nn.sigmoid: "sigmoid",
    nn.sigmoid: "sigmoid",
    jnp.tanh: "tanh",
    jax.nn.tanh: "tanh",
    nn.tanh: "tanh",
    jax.nn.hard_sigmoid: "hard_sigmoid",
    nn.hard_sigmoid: "hard_sigmoid",
    jax.nn.hard_tanh: "hard_tanh",
    nn.hard_tanh: "hard_tanh",
}


@dataclasses.dataclass(frozen=True)
class Use:
    """One use of a layer, and what was measured of it: shares of its units, and the norm of the loss's gradient."""

    path: str
    layer: Settings
    depth: int
    dead: float | None
    saturated: float | None
    gradient: float | None


class Look(NamedTuple):
    """One training pass of a supervised term: every use of a layer, as they start, and which parameters stand still."""

    uses: list[Use]
    outputs: np.ndarray
    still: set[str]  # paths of parameters of which every entry has a gradient of exactly 0


def look(term: Supervised, variables: Variables, batch: Batch, key: Array) -> Look:
    """Run the term once, forward and back, and measure every layer."""
    seen = jax.eval_shape(lambda *arguments: _probed(term, *arguments)[2], variables, batch, key)
    measured, outputs, zeros = jax.device_get(_program(term)(variables, batch, key))
    uses = [Use(one.path, one.layer, one.depth, **numbers) for one, numbers in zip(seen, measured, strict=True)]
    still = {path for path, zero in zip(paths(variables.params), jax.tree.leaves(zeros), strict=True) if zero}
    return Look(uses, outputs, still)


@cached_program
def _program(term: Supervised) -> Program:
    def measure(variables: Variables, batch: Batch, key: Array) -> tuple[list[dict[str, Any]], Any, Tree]:
        def loss(shifts: list[Any], params: Tree) -> tuple[Array, tuple[list[Seen], Any]]:
            variables_ = Variables(params, variables.state)
            outputs, _, seen = _probed(term, variables_, batch, key, shifts)
            targets = select_from(batch, term.targets, "targets")
            mask = select_from(batch, term.mask, "mask", optional=True)
            return jnp.asarray(masked(term.loss, outputs, targets, mask), jnp.float32), (seen, outputs)

        abstract = jax.eval_shape(lambda: _probed(term, variables, batch, key)[2])
        backward = jax.grad(loss, argnums=(0, 1), has_aux=True)
        (shifts, params), (seen, outputs) = backward(zero_shifts(abstract), variables.params)
        measured = [_measured(one, gradient) for one, gradient in zip(seen, shifts, strict=True)]
        return measured, outputs, jax.tree.map(lambda leaf: jnp.all(leaf == 0), params)

    return Program(measure, "diagnosis_layers")


def _probed(term: Supervised, variables: Variables, batch: Batch, key: Array, shifts: Any = None) -> Any:
    positional, named = model_inputs(select_from(batch, term.inputs, "inputs"))
    return probe(term.model, variables, *positional, key=key, train=True, shifts=shifts, **named)


def _measured(one: Seen, gradient: Any) -> dict[str, Any]:
    function = getattr(one.layer, "function", None) if isinstance(one.layer, Function) else None
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(gradient)]
    dead = saturated = None
    if function in _RELU and one.output.ndim > 1:
        dead = jnp.mean(jnp.all(_by_unit(one.output) == 0, axis=0), dtype=jnp.float32)
    elif (name := _SIGMOIDAL.get(function)) is not None and one.output.ndim > 1:  # pyright: ignore
        flat = jnp.abs(_by_unit(ACTIVATIONS[name].derivative(one.inputs[0]))) < FLAT
        saturated = jnp.mean(jnp.mean(flat, axis=0, dtype=jnp.float32) > MOST, dtype=jnp.float32)
    norm = jnp.sqrt(jnp.stack(squares).sum()) if squares else None
    return {"dead": dead, "saturated": saturated, "gradient": norm}


def _by_unit(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def check_units(uses: list[Use]) -> list[Finding]:
    """Layers of which too many units are dead or saturated for this batch."""
    findings = []
    for use in uses:
        if use.dead is not None and use.dead > SHARE:
            words = f"{use.dead:.0%} of the units put out 0 for every example of the batch"
            why = "A ReLU unit at 0 passes no gradient: where it is so for all data, its weights never change."
            fix = "He initialisation with zero bias, normalised inputs, a lower learning rate, leaky_relu or gelu"
            findings.append(Finding(DEAD, words, why, fix, use.path, {"share": use.dead}))
        if use.saturated is not None and use.saturated > SHARE:
            words = f"{use.saturated:.0%} of the units have a derivative below {FLAT:g} for most of the batch"
            why = "On its flat ends a sigmoid or tanh passes almost no gradient, and all layers before it stand still."
            fix = "Glorot or LeCun initialisation, normalised inputs, a norm before the activation, or relu or gelu"
            findings.append(Finding(SATURATED, words, why, fix, use.path, {"share": use.saturated}))
    return findings


def gradient_norms(uses: list[Use], params: Tree) -> dict[str, float]:
    """The norm of the loss's gradient at the output of each layer with parameters, from the first to the last."""
    return {use.path: float(use.gradient) for use in _parametric(uses, params) if use.gradient is not None}


def check_gradients(along: dict[str, float]) -> list[Finding]:
    """The norm of the gradient at the first layer with parameters, beside that at the last."""
    if len(along) < 2:
        return []
    (first, *_, last), norms = along, list(along.values())
    if not np.isfinite(norms).all() or norms[-1] == 0 or norms[0] == 0:
        return []
    ratio = norms[0] / norms[-1]
    listed = ", ".join(f"{path} {norm:.1e}" for path, norm in _some(list(along.items())))
    words = f"the gradient's norm is {norms[0]:.1e} at {first} and {norms[-1]:.1e} at {last} ({listed})"
    numbers = {"norms": along, "ratio": ratio}
    if ratio < 1 / RATIO:
        why = "The first layers learn a thousand times slower than the last: the network is as deep as its end."
        fix = "relu or gelu for sigmoid and tanh, He initialisation, norms, residual connections, fewer layers"
        return [Finding(VANISHING, words, why, fix, first, numbers)]
    if ratio > RATIO:
        why = "A step that suits the last layers throws the first ones far off: the loss jumps or becomes NaN."
        fix = "He or Glorot initialisation, norms, residual connections, optax.clip_by_global_norm(1.0)"
        return [Finding(EXPLODING, words, why, fix, first, numbers)]
    return []


def _parametric(uses: list[Use], params: Tree) -> list[Use]:
    """Uses of layers with parameters of their own, or with some below them where no use is seen."""
    known = {use.path for use in uses}
    chosen = []
    for use in uses:
        below: Any = params
        for part in use.path.split("/") if use.path else ():
            below = below.get(part, {}) if isinstance(below, dict) else {}
        own = isinstance(below, dict) and any(not isinstance(value, dict) for value in below.values())
        inside = any(path != use.path and path.startswith(f"{use.path}/" if use.path else "") for path in known)
        if own or (not inside and jax.tree.leaves(below)):
            chosen.append(use)
    return chosen


def _some(items: list[Any]) -> list[Any]:
    return items if len(items) <= 6 else [*items[:3], *items[-3:]]


def without_gradient(objective: Objective, variables: Variables, batch: Batch, key: Array) -> set[str]:
    """Paths of the parameters of which every entry has a gradient of exactly 0."""
    flags = jax.device_get(_zeros_program(objective)(variables, batch, key))
    return {path for path, zero in zip(paths(variables.params), jax.tree.leaves(flags), strict=True) if zero}


@cached_program
def _zeros_program(objective: Objective) -> Program:
    def zeros(variables: Variables, batch: Batch, key: Array) -> Tree:
        gradients = jax.grad(lambda params: objective(params, variables.state, batch, key, True)[0])(variables.params)
        return jax.tree.map(lambda leaf: jnp.all(leaf == 0), gradients)

    return Program(zeros, "diagnosis_gradients")


def no_gradient(found: set[str]) -> list[Finding]:
    """A finding that names the parameters to which nothing flows."""
    if not found:
        return []
    listed = ", ".join(sorted(found)[:6]) + ", …" * (len(found) > 6)
    words = f"every entry of the gradient is exactly 0, before and after some steps, of {len(found)} arrays: {listed}"
    why = "These parameters never change: the loss does not depend on them, or something in between passes no gradient."
    fix = "look for stop_gradient, rounding, argmax or step on the way, for a part that is not used, for zero weights"
    return [Finding(NO_GRADIENT, words, why, fix, min(found), {"paths": tuple(sorted(found))})]
