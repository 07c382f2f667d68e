"""The learning-rate finder: rates, losses and slopes in closed form, and a suggestion that trains real data well."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from jdl.check import InputError
from jdl.tuning import _local_lines, _search
from tests.networks import assert_close, batch_of, classify, mlp

LOSS = jdl.losses.cross_entropy
DATA = batch_of(64)


class Weight(nn.Layer):
    """One weight, 1 at first, which is the output for every example."""

    def params(self, x):
        return {"w": nn.Param((), nn.init.ones())}

    def forward(self, net, x):
        return net.w + 0 * x[:, 0]


def output(outputs, targets):
    """A loss with gradient 1."""
    return jnp.mean(outputs)


def square(outputs, targets):
    """A loss with gradient 8 w: steps of more than 1 / 4 diverge."""
    return 4 * jnp.mean(outputs**2)


def undetermined(outputs, targets):
    """Not a number from the first step on."""
    return jnp.log(-jnp.mean(outputs**2))


def noise(outputs, targets):
    """A loss that no rate lowers."""
    return jnp.mean(targets.astype(jnp.float32)) + 0 * jnp.mean(outputs)


def closed_form(low: float, high: float, steps: int) -> np.ndarray:
    return np.exp(np.linspace(np.log(low), np.log(high), steps))


# ── what it measures ──────────────────────────────────────────────────────────────────────────────────────────────


def test_rates_rise_exponentially_and_each_step_uses_its_own():
    search = jdl.find_learning_rate(Weight(), output, optax.sgd, DATA, low=1e-4, high=0.5, steps=40)
    rates = closed_form(1e-4, 0.5, 40)
    fallen = search.losses[0] - search.losses
    assert search.losses[0] == 1
    # Until the loss is below 0 by so much that a change is a divergence, which this loss never has.
    np.testing.assert_allclose(search.rates, rates[: len(search.rates)], rtol=1e-12)
    np.testing.assert_allclose(fallen, (np.cumsum(rates) - rates)[: len(fallen)], rtol=2e-5, atol=1e-6)
    assert len(fallen) == 40 and not search.diverged


def test_the_smoothed_curve_is_a_weighted_line_at_each_place():
    rng = np.random.default_rng(0)
    y, x = rng.normal(size=30), np.arange(30.0)
    values, slopes = _local_lines(y, 2.5)
    for place in (0, 1, 14, 29):
        weights = np.exp(-0.5 * ((x - place) / 2.5) ** 2)
        slope, value = np.polyfit(x - place, y, 1, w=np.sqrt(weights))  # polyfit squares its weights
        assert values[place] == pytest.approx(value, rel=1e-9)
        assert slopes[place] == pytest.approx(slope, rel=1e-9)
    values, slopes = _local_lines(3 - 2 * x, 1.5)
    np.testing.assert_allclose(values, 3 - 2 * x, atol=1e-9)
    np.testing.assert_allclose(slopes, -2, rtol=1e-9)
    assert _local_lines(np.ones(1), 1.0)[0] == 1


def test_it_stops_where_the_loss_diverges_and_suggests_less():
    """Gradient descent on 4 w² shrinks w below a rate of 1 / 4, fastest at 1 / 8, and blows it up above."""
    search = jdl.find_learning_rate(Weight(), square, optax.sgd, DATA, low=1e-4, high=100)
    assert search.diverged and len(search.rates) == len(search.losses) == len(search.smoothed) < 80
    assert 0.25 < search.rates[-1] < 2
    assert 1e-3 < search.suggestion < 0.125
    assert search.suggestion in search.rates


def test_a_steeper_fall_after_the_minimum_does_not_count():
    losses = np.concatenate([np.full(20, 3.0), np.linspace(3, 0, 30), np.full(25, 3.0), np.linspace(3, 0.5, 5)])
    search = _search(losses, 1e-4, 1.0, 80)
    assert np.argmin(search.slopes) > 60
    assert search.rates[15] < search.suggestion < search.rates[50]


def test_what_diverges_does_not_bend_the_curve():
    calm = np.concatenate([np.full(20, 3.0), np.linspace(3, 0.1, 30)])
    wild = _search(np.concatenate([calm, [0.5, 1e4, 1e9]]), 1e-4, 1.0, 80)
    assert np.max(wild.smoothed) < 3.2 and wild.losses[-1] == 1e9
    assert wild.rates[20] < wild.suggestion < wild.rates[49]


def test_one_program_is_traced_once():
    traces = []

    def counted(outputs, targets):
        traces.append(outputs.shape)
        return square(outputs, targets)

    jdl.find_learning_rate(Weight(), counted, optax.sgd, DATA, high=0.1, batch_size=16)
    assert traces.count((16,)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("form", ["objective", "gradient", "accumulate", "dict of tuples"])
def test_takes_what_fit_takes(form):
    model = mlp()
    want = jdl.find_learning_rate(model, LOSS, optax.adam, DATA, high=1e-2, steps=20)
    loss, data = {
        "objective": (classify(model), DATA),
        "gradient": (jdl.gradient(classify(model)), DATA),
        "accumulate": (jdl.accumulate(classify(model), 2), (DATA["inputs"], DATA["targets"])),
        "dict of tuples": (classify(model, inputs="x"), {"x": DATA["inputs"], "targets": DATA["targets"]}),
    }[form]
    search = jdl.find_learning_rate(model, loss, optax.adam, data, high=1e-2, steps=20)
    assert_close(search.losses, want.losses, 1e-5)


@pytest.mark.slow
def test_variables_given_stay_as_they_are_and_are_where_it_starts():
    model = mlp()
    variables = model.init(jax.random.key(5), DATA["inputs"])
    before = jax.tree.map(np.array, variables)
    search = jdl.find_learning_rate(
        model, LOSS, lambda rate: optax.sgd(rate, momentum=0.9), DATA, batch_size=64, variables=variables
    )
    assert_close(variables, before, 0)
    assert search.losses[0] == pytest.approx(float(LOSS(model(variables, DATA["inputs"]), DATA["targets"])), rel=1e-6)
    again = jdl.find_learning_rate(
        model, LOSS, lambda rate: optax.sgd(rate, momentum=0.9), DATA, batch_size=64, variables=variables
    )
    np.testing.assert_array_equal(search.losses, again.losses)


# ── the suggestion ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_suggestion_trains_digits_well():
    digits = jdl.data.load("digits")
    model = nn.Chain(nn.Flatten(), nn.Dense(64), nn.relu, nn.Dense(10))
    rate = jdl.find_learning_rate(model, LOSS, optax.adam, digits).suggestion
    assert 1e-3 < rate < 3e-2

    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1.0)
    objective = jdl.supervised(model, LOSS)
    rows = jdl.data.indices_between(len(digits.train), 32, 0, 0, 60)
    batches = [digits.train.gather(row) for row in rows]
    first = jdl.init_state(model, optimizer, batches[0])
    step = jax.jit(jdl.make_step(objective, optimizer))

    def trained(rate: float) -> float:
        """The validation loss after two epochs."""
        state = jdl.with_hyperparams(first, learning_rate=rate)
        for batch in batches:
            state, _ = step(state, batch)
        return jdl.evaluate(objective, state.variables, digits.validation)["loss"]

    loss = trained(rate)
    assert loss < 0.5
    assert loss < 0.5 * trained(rate / 10)
    assert loss < 0.5 * trained(rate * 100)


@pytest.mark.parametrize("loss, low, high, message", [
    (noise, 1e-7, 10, "no rate to suggest: between the rates 1e-07 and 10 the loss fell by .* at most, and batches"),
    (square, 1.0, 1e3, r"the loss diverged after \d+ steps, between the rates 1 and .*; start from a smaller low="),
    (square, 1e-9, 1e-8, "no rate to suggest"),
], ids=["noise", "too high", "too low"])  # fmt: skip
def test_where_the_loss_does_not_fall_it_says_so(loss, low, high, message):
    search = jdl.find_learning_rate(Weight(), loss, optax.sgd, DATA, low=low, high=high)
    with pytest.raises(InputError, match=message):
        _ = search.suggestion
    assert repr(search).endswith("no suggestion)")


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_only_rises_has_no_suggestion(seed):
    rng = np.random.default_rng(seed)
    data = (rng.normal(size=(400, 10)).astype(np.float32), rng.integers(3, size=400).astype(np.int32))
    search = jdl.find_learning_rate(nn.Dense(3), LOSS, optax.adam, data, low=1, high=1e3, seed=seed)
    with pytest.raises(InputError, match="no rate to suggest"):
        _ = search.suggestion


def test_the_picture(tmp_path):
    search = jdl.find_learning_rate(Weight(), square, optax.sgd, DATA, low=1e-4, high=100)
    figure = search.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 1000
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "learning rate"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["batches", "smoothed", f"steepest at {search.suggestion:.2g}"]
    assert axes.get_ylim()[1] < 5  # what diverged stays outside
    flat = jdl.find_learning_rate(Weight(), noise, optax.sgd, DATA, steps=20).plot()
    assert flat.axes[0].get_title(loc="left") == "loss by learning rate: it does not fall"
    with pytest.raises(InputError, match="suffix"):
        search.plot(tmp_path / "rates.txt")
    assert "suggestion=" in repr(search) and "diverged" in repr(search)


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options, message", [
    ({"optimizer": optax.adam(1e-3)}, "optimizer got one with a rate of its own, wanted a function of the rate"),
    ({"optimizer": 1e-3}, "optimizer got 0.001, wanted a function of the rate: optax.adam"),
    ({"optimizer": lambda rate: rate}, r"optimizer\(rate\) returned .*wanted an optax optimizer"),
    ({"low": 0}, "low got 0 and high 10.0, wanted rates with 0 < low < high"),
    ({"low": 1e-3, "high": 1e-3}, "0 < low < high"),
    ({"high": float("inf")}, "0 < low < high"),
    ({"steps": 5}, "steps got 5, wanted an integer of at least 20"),
    ({"steps": 100.0}, "steps got 100.0"),
    ({"batch_size": 100}, "100"),
    ({"model": jnp.tanh}, "wanted a layer"),
    ({"loss": "mse"}, "loss got 'mse', wanted a function"),
    ({"data": [1, 2]}, "data got list"),
    ({"data": (DATA["inputs"], DATA["targets"] + 5)}, "in data: .*labels"),
    ({"model": Weight(), "loss": undetermined}, "the first loss is not finite"),
])  # fmt: skip
def test_arguments(options, message):
    given = {"model": mlp(), "loss": LOSS, "optimizer": optax.adam, "data": DATA} | options
    with pytest.raises(InputError, match=message):
        jdl.find_learning_rate(**given)
