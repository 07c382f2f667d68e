"""Dynamic loss scaling: the rule of PyTorch's GradScaler, and gradients that float16 alone would lose."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from jdl.check import InputError
from tests.networks import assert_close, batch_of, classify, mlp

KEY, BATCH = jax.random.key(1), batch_of()

# One digit a step, 0 where the gradient is infinite, and what torch.amp.GradScaler("cpu", init_scale=2**16,
# growth_interval=3) of PyTorch 2.13 has after it: log2 of the scale, its counter, and the weight under SGD(lr=1).
FINITE = "11011111100110111111"
TORCH = {
    "log2_scale": "16 16 15 15 15 16 16 16 17 16 15 15 15 14 14 14 15 15 15 16",
    "good_steps": "1 2 0 1 2 0 1 2 0 0 0 1 2 0 1 2 0 1 2 0",
    "weight": "-1 -2 -2 -3 -4 -5 -6 -7 -8 -8 -8 -9 -10 -10 -11 -12 -13 -14 -15 -16",
}


def scale_state(scale: float = 2.0**16) -> dict[str, jax.Array]:
    return {"loss_scale": jnp.float32(scale), "loss_scale_good_steps": jnp.int32(0)}


@dataclasses.dataclass(frozen=True)
class Slope(jdl.Objective):
    """A loss whose gradient is what the batch says: ``w · slope``; the state counts the calls."""

    def __call__(self, params, state, batch, key, train):
        loss = params["w"] * jnp.mean(batch["slope"])
        return loss, jdl.Aux(loss, 1.0, state | {"calls": state["calls"] + 1}, {})


def sgd_where_finite(params: Any, grads: Any) -> Any:
    finite = jnp.isfinite(grads["w"])
    return {"w": params["w"] - jnp.where(finite, grads["w"], 0)}


def test_scale_and_counter_follow_the_rule_of_pytorch():
    gradient = jdl.loss_scaled(Slope(), interval=3)

    def step(carry, slope):
        params, state = carry
        grads, aux = gradient(params, state, {"slope": slope[None]}, None)
        params = sgd_where_finite(params, grads)
        return (params, aux.state), (aux.state, params["w"], grads["w"])

    slopes = jnp.where(jnp.array([int(flag) for flag in FINITE]) > 0, 1.0, jnp.inf)
    first = ({"w": jnp.float32(0)}, scale_state() | {"calls": jnp.int32(0)})
    _, (states, weights, grads) = jax.lax.scan(step, first, slopes)
    want = {name: np.array(text.split(), np.float32) for name, text in TORCH.items()}
    np.testing.assert_array_equal(np.log2(states["loss_scale"]), want["log2_scale"])
    np.testing.assert_array_equal(states["loss_scale_good_steps"], want["good_steps"])
    np.testing.assert_array_equal(weights, want["weight"])
    np.testing.assert_array_equal(grads, slopes)  # what is not finite is returned as such
    np.testing.assert_array_equal(states["calls"], -want["weight"])  # a step to skip leaves the other state as it was


@pytest.mark.parametrize("scale, slope, after", [(2.0**127, 0.0, 2.0**127), (2.0**-126, np.inf, 2.0**-126)])
def test_the_scale_stays_positive_and_finite(scale, slope, after):
    state = scale_state(scale) | {"calls": jnp.int32(0)}
    batch = {"slope": jnp.full(1, slope, jnp.float32)}
    aux = jdl.loss_scaled(Slope(), interval=1)({"w": jnp.float32(0)}, state, batch, None)[1]
    assert float(aux.state["loss_scale"]) == after


# ── gradients ─────────────────────────────────────────────────────────────────────────────────────────────────────


def half(scale: float = 2.0**16, model: nn.Layer | None = None) -> tuple[jdl.Objective, nn.Variables]:
    model = nn.Precision(model or mlp(), "float16")
    params, state = model.init(jax.random.key(0), BATCH["inputs"])
    return classify(model, metrics=[jdl.metrics.accuracy]), nn.Variables(params, state | scale_state(scale))


def full() -> tuple[Any, jdl.Aux]:
    return jax.jit(jdl.gradient(classify(mlp(), metrics=[jdl.metrics.accuracy])))(half()[1].params, {}, BATCH, KEY)


@pytest.mark.slow
@pytest.mark.parametrize("factor, least, most", [(1.0, 0, 4e-3), (1e-7, 0.05, 1), (3e-9, 1, 1)])
def test_gradients_that_vanish_in_float16_survive(factor, least, most):
    """The least number of float16 is 6e-8: times 1e-7 these gradients are off by ``least`` to ``most``, or all lost."""
    want = jax.tree.map(lambda g: factor * g, full()[0])
    objective, variables = half()
    scaled, aux = jax.jit(jdl.loss_scaled(factor * objective))(*variables, BATCH, KEY)
    assert_close(scaled, want, 4e-3)
    assert float(aux.loss) == pytest.approx(factor * float(full()[1].loss), rel=2e-3)
    assert {leaf.dtype for leaf in jax.tree.leaves(scaled)} == {jnp.dtype("float32")}
    alone = jax.jit(jdl.gradient(factor * objective))(*variables, BATCH, KEY)[0]
    off = [np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in zip(*map(jax.tree.leaves, (alone, want)), strict=True)]
    assert least <= min(off) and max(off) <= most


AROUND: dict[str, Any] = {
    "itself": lambda objective: jdl.loss_scaled(objective),
    "of a gradient": lambda objective: jdl.loss_scaled(jdl.gradient(objective)),
    "of accumulate": lambda objective: jdl.loss_scaled(jdl.accumulate(objective, 4)),
    "in accumulate": lambda objective: jdl.accumulate(jdl.loss_scaled(objective), 4),
    "of sharpness_aware": lambda objective: jdl.loss_scaled(jdl.sharpness_aware(objective, 1e-6)),
    "of an average over devices": lambda objective: jdl.loss_scaled(jdl.mean_over_devices(objective, "devices")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AROUND)
def test_composes_with_other_gradients(name):
    objective, variables = half()
    gradient, steps = AROUND[name](objective), 4 if name == "in accumulate" else 1
    if "devices" in name:
        shards = jax.tree.map(lambda x: x.reshape(2, 6, *x.shape[1:]), BATCH)
        both = jax.vmap(gradient, in_axes=(None, None, 0, None), axis_name="devices")
        grads, aux = jax.tree.map(lambda x: x[0], jax.jit(both)(*variables, shards, KEY))
    else:
        grads, aux = jax.jit(gradient)(*variables, BATCH, KEY)
    want, plain = full()
    assert_close(grads, want, 4e-3)
    assert int(aux.state["loss_scale_good_steps"]) == steps
    assert float(aux.metrics["accuracy"]) == float(plain.metrics["accuracy"])
    overflow = nn.Variables(variables.params, variables.state | scale_state(2.0**40))
    if "devices" not in name:
        grads, aux = jax.jit(gradient)(*overflow, BATCH, KEY)
        assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
        assert float(aux.state["loss_scale"]) == 2.0 ** (40 - steps)
        assert float(aux.loss) == pytest.approx(float(plain.loss), rel=2e-3)


def train(gradient: Any, variables: nn.Variables, steps: int) -> tuple[jdl.TrainState, jax.Array]:
    """Every state after the first, and the losses, under an optimizer that skips what is not finite."""
    optimizer = jdl.skip_nonfinite(optax.sgd(0.1, momentum=0.9))
    step = jdl.make_step(gradient, optimizer)

    def one(state, _):
        state, metrics = step(state, BATCH)
        return state, (state, metrics["loss"].compute())

    start = jdl.start_state(variables, optimizer, KEY)
    return jax.jit(lambda start: jax.lax.scan(one, start, None, steps)[1])(start)


@pytest.mark.slow
def test_recovers_from_an_overflow_and_trains_on_as_float32_does():
    """From a scale of 2⁴⁰: parameters and batch statistics wait until it has come down."""
    model = nn.Chain(nn.Dense(7), nn.BatchNorm(), jnp.tanh, nn.Dense(3))
    objective, variables = half(2.0**40, model)
    states, losses = train(jdl.loss_scaled(objective), variables, 40)
    scales = np.log2(states.state["loss_scale"])
    skipped = int(np.argmin(scales)) + 1
    assert 5 < skipped < 30
    np.testing.assert_array_equal(scales, np.maximum(39 - np.arange(40), 40 - skipped))
    waiting = jax.tree.map(lambda leaf: leaf[skipped - 1], states)
    assert_close(waiting.params, variables.params, 0)
    assert_close(waiting.state["1"], variables.state["1"], 0)
    assert int(jdl.skipped(states.opt_state).total[-1]) == skipped
    plain, plain_losses = train(classify(model), nn.Variables(variables.params, {"1": variables.state["1"]}), 40)
    np.testing.assert_allclose(losses[skipped:], plain_losses[: 40 - skipped], rtol=1e-2)
    same = jax.tree.map(lambda leaf: leaf[39 - skipped], plain)
    assert_close(jax.tree.map(lambda leaf: leaf[-1], states.state["1"]), same.state["1"], 1e-2)


def test_in_fit():
    """The recipe: the run is evaluated as any other, and its loss is the loss itself."""
    model = nn.Precision(mlp(), "float16")
    data, held_out = (jax.tree.map(np.array, batch_of(size, seed)) for size, seed in ((40, 0), (20, 1)))
    run = jdl.fit(
        model, jdl.loss_scaled(classify(model)), jdl.skip_nonfinite(optax.adam(1e-2)), data, validation=held_out,
        epochs=6, batch_size=20, progress=False,
    )  # fmt: skip
    assert 0 < run.history[-1]["loss"] < run.history[0]["loss"] < 3
    assert run.evaluate(held_out)["loss"] == pytest.approx(run.history[-1]["validation_loss"], rel=1e-5)
    found = jdl.skipped(run.state)
    assert found is not None and int(found.total) == 0
    assert run.compilations == {"train": 1, "evaluation": 1}
    assert int(run.state.state["loss_scale_good_steps"]) == 12


def test_several_runs_at_once_scale_apart():
    objective, variables = half()
    scales = jnp.array([2.0**16, 2.0**40])
    states = {"loss_scale": scales, "loss_scale_good_steps": jnp.zeros(2, jnp.int32)}
    _, aux = jax.jit(jax.vmap(jdl.loss_scaled(objective), in_axes=(None, 0, None, None)))(
        variables.params, states, BATCH, KEY
    )
    np.testing.assert_array_equal(aux.state["loss_scale"], [2.0**16, 2.0**39])
    np.testing.assert_array_equal(aux.state["loss_scale_good_steps"], [1, 0])


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model, message", [
    (mlp(), r'no loss scale, wanted one; wrap the whole model: nn.Precision\(model, "float16"\)'),
    (nn.Precision(mlp()), "no loss scale"),
    (nn.Chain(*(nn.Precision(nn.Dense(3), "float16") for _ in range(2))),
     "2 loss scales .0/loss_scale, 1/loss_scale., wanted one; wrap the whole model"),
    (nn.Repeat(nn.Precision(nn.Dense(5), "float16"), 2), r"loss_scale is float32\[2\].*around Repeat or Ensemble"),
], ids=["none", "bfloat16", "two", "stacked"])  # fmt: skip
def test_a_state_without_one_scale_is_refused(model, message):
    variables = model.init(KEY, BATCH["inputs"])
    with pytest.raises(InputError, match=message):
        jax.eval_shape(jdl.loss_scaled(classify(model)), *variables, BATCH, KEY)


def test_a_scale_below_the_root_is_found():
    model = nn.Chain(first=nn.Precision(nn.Dense(4), "float16"), second=nn.Dense(3))
    variables = model.init(KEY, BATCH["inputs"])
    aux = jax.eval_shape(jdl.loss_scaled(classify(model)), *variables, BATCH, KEY)[1]
    assert set(aux.state["first"]) == {"loss_scale", "loss_scale_good_steps"}


def test_arguments_that_cannot_be_scaled_are_refused():
    objective = half()[0]
    with pytest.raises(InputError, match=r"loss_scaled got clip_per_example.*gradients scale with the loss"):
        jdl.loss_scaled(jdl.clip_per_example(objective, 1.0))
    with pytest.raises(InputError, match=r"loss_scaled got .*wanted an objective"):
        jdl.loss_scaled(jdl.vector_field(lambda *_: None))
    with pytest.raises(InputError, match="wanted a gradient or an objective"):
        jdl.loss_scaled(3)
    for wrong in (0, 2.5):
        with pytest.raises(InputError, match=r"interval got .* at least 1"):
            jdl.loss_scaled(objective, wrong)
