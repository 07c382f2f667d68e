"""Holds networks against the files that `make_zoo_convolutional.py` writes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import nn
from tests.golden import reading
from tests.nn.toys import apply_jitted, assert_close


def case(file: str, name: str) -> dict[str, Any]:
    """What the file holds of a network, as nested dicts."""
    tree: dict[str, Any] = {"state": {}}
    for path, value in reading.load(file).items():
        if path.startswith(f"{name}/"):
            *parents, leaf = path.split("/")[1:]
            functools.reduce(lambda below, part: below.setdefault(part, {}), parents, tree)[leaf] = value
    return tree


def assert_values(file: str, name: str, model: nn.Layer) -> None:
    """The model has PyTorch's output in evaluation."""
    known = case(file, name)
    assert_close(
        apply_jitted(model, nn.Variables(known["params"], known["state"]), known["in"]["x"])[0], known["out"], 1e-5
    )


def assert_as_pytorch(file: str, name: str, model: nn.Layer) -> None:
    """The model has PyTorch's output, in training too, and its gradients by every parameter and by the input."""
    known = case(file, name)
    grads = known["grad"]

    @jax.jit
    def program(params: Any, state: Any, x: Any, weights: Any) -> Any:
        def loss(both: Any) -> Any:
            out, _ = model.apply(both[0], state, both[1], train=True)
            return jnp.sum(weights * out), out

        (param_grads, x_grad), trained = jax.grad(loss, has_aux=True)((params, x))
        out = model.apply(params, state, x)[0] if "trained" in known else trained
        return out, trained, param_grads | {"x": x_grad}

    out, trained, gradient = program(known["params"], known["state"], known["in"]["x"], known["weights"])
    assert_close(out, known["out"], 1e-5)
    assert_close(trained, known.get("trained", known["out"]), 1e-5)
    assert jax.tree.structure(gradient) == jax.tree.structure(grads)
    largest = max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(grads))

    def compare(path: Any, ours: Any, theirs: Any) -> None:
        ours = np.asarray(ours)[..., : theirs.shape[-1]]
        scale = max(np.max(np.abs(theirs)), 1e-2 * largest)  # what rounding leaves of a gradient of 0 has none
        worst = np.max(np.abs(ours - theirs))
        assert worst <= 1e-5 * scale, (jax.tree_util.keystr(path), worst, scale)

    jax.tree_util.tree_map_with_path(compare, gradient, grads)
