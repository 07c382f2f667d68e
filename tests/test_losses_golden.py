"""Every loss, with every setting, against PyTorch's values and gradients (tests/golden/make_losses.py)."""

from __future__ import annotations

import functools
import inspect
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import losses
from tests.golden import reading

ARRAYS = reading.load("losses")
CASES: dict[str, list[Any]] = {
    name.removesuffix("/call"): json.loads(str(call)) for name, call in ARRAYS.items() if name.endswith("/call")
}
TOLERANCE = 1e-5


class Case(NamedTuple):
    outputs: Any
    targets: Any
    mask: jax.Array


def case(name: str) -> Case:
    """Several arrays of one role become a tuple, none at all None."""

    def role(prefix: str) -> Any:
        arrays = [jnp.asarray(ARRAYS[key]) for key in sorted(ARRAYS) if key.startswith(f"{name}/{prefix}/")]
        return None if not arrays else arrays[0] if len(arrays) == 1 else tuple(arrays)

    return Case(role("outputs"), role("targets"), jnp.asarray(ARRAYS[f"{name}/mask"]))


@functools.cache
def computed(loss_name: str) -> dict[str, dict[str, Any]]:
    """Ours for all cases of one loss, as one compiled program."""
    found = {name: case(name) for name, (loss, _) in CASES.items() if loss == loss_name}

    def everything(found: dict[str, Case]) -> dict[str, dict[str, Any]]:
        results = {}
        for name, (outputs, targets, mask) in found.items():
            loss = functools.partial(getattr(losses, loss_name), **CASES[name][1])
            mean, grads = jax.value_and_grad(loss, allow_int=True)(outputs, targets, mask)
            results[name] = {
                "mean": mean,
                "grad": [g for g in jax.tree.leaves(grads) if g.dtype != jax.dtypes.float0],
                "none": loss(outputs, targets, mask, "none"),
                "sum": loss(outputs, targets, mask, "sum"),
                "plain": loss(outputs, targets),
            }
        return results

    compiled = jax.jit(everything)
    return jax.device_get(compiled(found))


def assert_close(ours: np.ndarray, wanted: np.ndarray) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == wanted.shape
    assert np.abs(ours - wanted).max() <= TOLERANCE * max(np.abs(wanted).max(), 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    ours = computed(CASES[name][0])[name]
    for key in ("mean", "none", "plain"):
        assert_close(ours[key], ARRAYS[f"{name}/{key}"])
    assert_close(ours["sum"], ARRAYS[f"{name}/none"].sum())
    wanted = [ARRAYS[key] for key in sorted(ARRAYS) if key.startswith(f"{name}/grad/")]
    for grad, expected in zip(ours["grad"], wanted, strict=True):
        assert_close(grad, expected)


def test_every_loss_and_setting_has_a_case() -> None:
    given = {(loss, option) for loss, options in CASES.values() for option in [None, *options]}
    public = [name for name in losses.__all__ if name[0].islower() and name not in ("configured", "check_labels")]
    of_codes = {name for name in public if getattr(losses, name).__module__ == "jdl.losses.latent"}
    for name in set(public) - of_codes:  # those in tests/zoo/test_autoencoders.py
        assert (name, None) in given
        for parameter in inspect.signature(getattr(losses, name)).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "epsilon":
                assert (name, parameter.name) in given, f"{name} has no golden case of {parameter.name}"
