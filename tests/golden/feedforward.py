"""Asks whether one of our networks gives what feedforward.npz has from PyTorch."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jdl
from jdl import nn
from tests.golden import reading
from tests.golden.make_feedforward import drawn, thinned

TOLERANCE = 1e-5
load = functools.cache(reading.load)


def assert_as_pytorch(name: str, model: nn.Layer) -> None:
    """Outputs, and gradients with respect to the input and every parameter."""
    golden = load("feedforward")
    values = {path: jnp.asarray(value) for path, value in drawn(name, int(golden[f"{name}/seed"])).items()}
    x = values.pop("x")
    structure = jax.tree.structure(spec := model.spec(x).params)
    params = jax.tree.unflatten(structure, [values.pop(path) for path in jdl.paths(spec)])
    assert not values, f"PyTorch's network has also {sorted(values)}"

    @jax.jit
    def program(params, x):
        def loss(params, x):
            out = model(nn.Variables(params, {}), x)
            return jnp.sum(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape) * out), out

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    (gradient, x_gradient), out = program(params, x)
    ours = {f"grad/{path}": leaf for path, leaf in zip(jdl.paths(gradient), jax.tree.leaves(gradient), strict=True)}
    ours |= {"out": out, "grad/x": x_gradient}
    assert {f"{name}/{entry}" for entry in ours} | {f"{name}/seed"} == {k for k in golden if k.startswith(f"{name}/")}
    for entry, value in ours.items():
        theirs = golden[f"{name}/{entry}"]
        value = np.asarray(value) if entry == "out" else thinned(np.asarray(value))
        assert value.shape == theirs.shape, entry
        worst, size = np.max(np.abs(value - theirs)), np.max(np.abs(theirs))
        assert worst <= TOLERANCE * size, f"{entry} differs by {worst:.1e} of {size:.1e}"
