"""The forecasters: PyTorch's values and gradients, levels that change nothing, and what is refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn, zoo
from tests.golden import reading
from tests.nn.toys import KEY, apply_jitted, assert_close, normal, refused

GOLDEN = reading.load("forecasting")
WINDOWS = jnp.asarray(GOLDEN["windows"])
MODELS = {
    "linear": zoo.LinearForecaster(4),
    "rnn": zoo.Forecaster(4, nn.Recurrent(nn.RNNCell(3))),
    "lstm": zoo.Forecaster(4, nn.Recurrent(nn.LSTMCell(3))),
    "gru": zoo.FromLastValue(zoo.Forecaster(4, nn.Recurrent(nn.GRUCell(3))), target=1),
}


def tree(prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in GOLDEN.items():
        if name.startswith(prefix):
            *path, last = name.removeprefix(prefix).split("/")
            place = found
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
    return found


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_pytorch(name: str):
    model = MODELS[name]

    @jax.jit
    def program(params, windows):
        def loss(params, windows):
            out = model.apply(params, {}, windows)[0]
            return jnp.sum(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape) * out), out

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, windows)

    (gradient, of_windows), out = program(tree(f"{name}/params/"), WINDOWS)
    assert_close(out, GOLDEN[f"{name}/out"], 1e-5)
    assert_close(gradient | {"windows": of_windows}, tree(f"{name}/grad/"), 1e-5)


def test_the_standard_sizes():
    window = jax.ShapeDtypeStruct((2, 96, 1), jnp.float32)
    assert zoo.LinearForecaster(24).spec(window).parameters == 2_328
    assert "2,328" in (zoo.LinearForecaster.__doc__ or "")
    for cell, count in ((nn.GRUCell(32), 6_416), (nn.LSTMCell(32), 7_472), (nn.RNNCell(32), 4_208)):
        assert zoo.Forecaster(24, nn.Recurrent(cell)).spec(window).parameters == count
        assert f"{count:,}" in (zoo.Forecaster.__doc__ or "")
    assert zoo.Forecaster(24) == zoo.Forecaster(24, nn.Recurrent(nn.GRUCell(32)))


@pytest.mark.slow
def test_a_forecaster_begins_near_its_linear_map():
    model = zoo.Forecaster(4, nn.Recurrent(nn.RNNCell(8)))
    x = normal(16, 12, 2)
    variables = model.init(KEY, x)
    linear = zoo.LinearForecaster(4)(nn.Variables(variables.params["linear"], {}), x)
    both = apply_jitted(model, variables, x)[0]
    assert 0 < np.max(np.abs(both - linear)) < 0.1 * np.max(np.abs(linear))


def test_a_level_that_training_never_saw_changes_nothing():
    model, variables = MODELS["gru"], nn.Variables(tree("gru/params/"), {})
    forecast = GOLDEN["gru/out"]
    higher = apply_jitted(model, variables, WINDOWS + jnp.array([0.0, 100.0]))[0]
    np.testing.assert_allclose(higher - 100, forecast, atol=1e-4)
    other_column = apply_jitted(model, variables, WINDOWS + jnp.array([1.0, 0.0]))[0]
    assert np.abs(other_column - forecast).max() > 1e-3, "of other columns the level stays"


def first_column(x: jax.Array) -> jax.Array:
    return x[..., :1]


def test_the_linear_forecast_can_be_another():
    linear = nn.Chain(first_column, map=zoo.LinearForecaster(4))
    model = zoo.Forecaster(4, nn.Chain(nn.Reshape((3, -1)), nn.Recurrent(nn.RNNCell(2))), linear)
    spec = model.spec(jax.ShapeDtypeStruct((5, 6, 2), jnp.float32))
    assert spec.params["linear"]["map"]["map"]["kernel"].shape == (6, 4), "six steps of one column"
    assert spec.params["recurrent"]["1"]["kernel"].shape == (4, 2), "two steps of two columns at once"


def test_any_forecaster_stands_around_the_last_value():
    x = normal(5, 6, 2)
    model = zoo.FromLastValue(nn.Chain(nn.Flatten(), nn.Dense(3, kernel_init=nn.init.zeros())))
    assert_close(model(model.init(KEY, x), x), np.repeat(x[:, -1:, 0], 3, axis=1))


@pytest.mark.parametrize(
    ("model", "x", "parts"),
    [
        (
            zoo.Forecaster(4),
            normal(5, 6),
            ("in linear: ", "float32[5, 6]", "[B, T, D]", "x[..., None]"),
        ),
        (zoo.LinearForecaster(4), jnp.ones((5, 6, 1), int), ("floating dtype", "astype(jnp.float32)")),
        (
            zoo.FromLastValue(zoo.Forecaster(4), target=2),
            normal(5, 6, 2),
            ("target 2", "float32[5, 6, 2]", "2 col"),
        ),
        (zoo.FromLastValue(zoo.Forecaster(4)), normal(5, 6), ("float32[5, 6]", "[B, T, D]")),
    ],
)
def test_refused(model: nn.Layer, x: jax.Array, parts: tuple[str, ...]):
    with refused(*parts):
        model.init(KEY, x)


@pytest.mark.parametrize("target", [-1, 0.5, "sales", None])
def test_a_target_that_numbers_no_column_is_refused(target: Any):
    with refused(f"FromLastValue.target got {target!r}, wanted an int of at least 0"):
        zoo.FromLastValue(zoo.Forecaster(4), target)


@pytest.mark.parametrize("network", [zoo.Forecaster, zoo.TextNet, zoo.RecurrentEncoder, zoo.RecurrentDecoder])
def test_a_cell_alone_is_refused(network: Any):
    sizes = (4,) if network is zoo.Forecaster else (4, 3)
    with refused(f"{network.__name__}.recurrent got GRUCell(32), a cell", "nn.Recurrent(GRUCell(32))"):
        network(*sizes, recurrent=nn.GRUCell(32))


@pytest.mark.slow
def test_it_learns_what_no_linear_map_can():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 6, 1)).astype(np.float32)
    targets = np.abs(x[:, -2:, 0])  # the linear map of a symmetric x to |x| is a constant
    model = zoo.Forecaster(2, nn.Recurrent(nn.RNNCell(8)))
    run = jdl.fit(model, jdl.losses.mse, optax.adam(2e-2), (x, targets), epochs=25, steps_per_call=8)
    assert run.history[-1]["loss"] < 0.25 * np.var(targets)
