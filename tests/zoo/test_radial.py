"""The radial basis network: PyTorch's values and gradients, and what makes it radial."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jdl
from jdl import nn, zoo
from jdl.nn.functional import radial_basis
from tests.golden.feedforward import assert_as_pytorch
from tests.nn.toys import KEY, assert_close, normal, refused


def test_values_and_gradients_are_those_of_pytorch():
    assert_as_pytorch("RadialBasisNetwork", zoo.RadialBasisNetwork(5, 3))


def test_the_standard_size():
    parameters = zoo.RadialBasisNetwork(200, 10).spec(normal(2, 8, 8, 1)).parameters
    assert parameters == 15_010 and f"{parameters:,}" in str(zoo.RadialBasisNetwork.__doc__)
    with refused("RadialBasisNetwork.units got 0"):
        zoo.RadialBasisNetwork(0, 10)
    with refused("RadialBasisNetwork.outputs got -1"):
        zoo.RadialBasisNetwork(200, -1)


def test_far_from_every_centre_only_the_bias_is_left():
    model, x = zoo.RadialBasisNetwork(5, 2), normal(3, 2)
    variables = model.init(KEY, x)
    variables.params["output"]["bias"] = np.array([0.5, -0.25], np.float32)
    model = jax.jit(model)
    far = model(variables, x + 1000)
    assert_close(far, np.broadcast_to(variables.params["output"]["bias"], (3, 2)))
    assert np.any(np.abs(model(variables, x) - far) > 0.01)


@pytest.mark.slow
def test_with_centres_from_the_data_the_output_alone_divides_two_rings():
    """No line does. The weights are those of least squares, as in the papers."""
    rng = np.random.default_rng(0)
    angle, inner = rng.uniform(0, 2 * np.pi, 80), np.arange(80) % 2
    x = ((2 - inner) * np.stack([np.cos(angle), np.sin(angle)])).T.astype(np.float32)
    model = zoo.RadialBasisNetwork(8, 1)
    frozen = jdl.freeze(nn.with_centres(model, model.init(KEY, x), x, key=KEY), "basis/**")
    assert jdl.paths(frozen.params) == ("output/bias", "output/kernel")
    hidden = np.c_[radial_basis(x, **frozen.state["basis"]), np.ones(80)]
    weights = np.linalg.lstsq(hidden, 2.0 * inner - 1, rcond=None)[0].astype(np.float32)
    solved = nn.Variables({"output": {"kernel": weights[:8, None], "bias": weights[8:]}}, frozen.state)
    assert np.all((np.asarray(model(solved, x))[:, 0] > 0) == inner)
