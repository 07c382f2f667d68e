"""Every function of `jdl.nn.functional` against PyTorch's values and gradients."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.nn import functional as F
from tests.golden import reading

SUBJECTS = ("conv", "pool", "norm", "activation", "dense")
CASES = {subject: reading.cases(subject) for subject in SUBJECTS}


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def call(case: reading.Case, inputs: dict[str, jax.Array]) -> jax.Array:
    return getattr(F, case.function)(**inputs, **case.options)


@functools.cache
def results(subject: str) -> dict[str, Any]:
    """Outputs and gradients of all cases, as one compiled program."""

    def everything(inputs):
        found = {}
        for name, case in CASES[subject].items():
            fixed = {k: v for k, v in inputs[name].items() if k not in case.grads}

            def objective(trained, case=case, fixed=fixed):
                out = call(case, trained | fixed)
                return jnp.sum(out * case.weights), out

            trained = {k: inputs[name][k] for k in case.grads}
            grads, out = jax.grad(objective, has_aux=True)(trained)
            found[name] = out, grads
        return found

    return jax.jit(everything)({name: case.inputs for name, case in CASES[subject].items()})


@pytest.mark.slow
@pytest.mark.parametrize(("subject", "name"), [(subject, name) for subject in SUBJECTS for name in CASES[subject]])
def test_values_and_gradients_are_those_of_pytorch(subject, name):
    case, (out, grads) = CASES[subject][name], results(subject)[name]
    assert_close(out, case.out)
    assert grads.keys() == case.grads.keys()
    for argument, grad in grads.items():
        assert_close(grad, case.grads[argument])


WITH_X = [pytest.param(case, id=name) for s in SUBJECTS for name, case in CASES[s].items() if "x" in case.inputs]


@pytest.mark.parametrize("case", WITH_X)
def test_the_result_has_the_dtype_of_the_input_beside_float32_parameters(case):
    inputs = {k: jax.ShapeDtypeStruct(v.shape, jnp.bfloat16 if k == "x" else v.dtype) for k, v in case.inputs.items()}
    out = jax.eval_shape(functools.partial(call, case), inputs)
    assert (out.shape, out.dtype) == (case.out.shape, jnp.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["norm", "activation"])
def test_bfloat16_is_as_close_as_its_rounding_allows(subject):
    """Statistics, sums and softmax in float32: one rounding of the input and one of the output, 2⁻⁸ each."""
    names = [name for name in CASES[subject] if not name.endswith("far")]  # there one rounding of x is a large change

    def everything(inputs):
        return {name: call(CASES[subject][name], inputs[name]) for name in names}

    inputs = {name: dict(CASES[subject][name].inputs) for name in names}
    for values in inputs.values():
        values["x"] = jnp.asarray(values["x"], jnp.bfloat16)
    for name, out in jax.jit(everything)(inputs).items():
        assert_close(out.astype(jnp.float32), CASES[subject][name].out, 0.012)


VMAPPED = ["conv_1d_all", "conv_2d_groups", "conv_transpose_2d_groups", "max_2d", "average_2d_overlap", *CASES["dense"]]


@pytest.mark.parametrize("name", VMAPPED)
def test_vmap_is_a_loop(name):
    case = (CASES["conv"] | CASES["dense"] | CASES["pool"])[name]
    inputs = {k: np.stack([v, v[::-1]]) for k, v in case.inputs.items()}
    mapped = jax.vmap(functools.partial(call, case))(inputs)
    for k in range(2):
        assert_close(mapped[k], call(case, {name: value[k] for name, value in inputs.items()}))
