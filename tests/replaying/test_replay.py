"""Non-finite values planted in a step: the replay names the place where they were planted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn, replaying
from jdl.losses import cross_entropy, mse
from jdl.objectives import Penalty

SGD = optax.sgd(0.1)
RNG = np.random.default_rng(0)
INPUTS = jnp.asarray(RNG.uniform(0.5, 1.5, size=(6, 3)), jnp.float32)
BATCH = {"inputs": INPUTS, "targets": INPUTS}
ZEROS = nn.Dense(3, kernel_init=nn.init.zeros())


@pytest.fixture(autouse=True)
def compiled(request):
    """Compile only where a test asks for it: the operations of all others are shared, and cost a third."""
    with jax.disable_jit(not getattr(request, "param", False)):
        yield


def cut(x):
    """0 in example 4, which is positive elsewhere."""
    return x.at[4].set(0.0) if len(x) == 6 else jnp.where(x == INPUTS[4], 0.0, x)


def guarded_log(x):
    return jnp.where(x > 0, jnp.log(x), 0.0)


def masking(x):
    return x.at[:, 0].set(-jnp.inf)


def negative_sqrt(x):
    return jnp.sqrt(x - 2)


def eightfold_exp(x):
    return jnp.exp(jnp.abs(x) * 8)


def over_nothing(outputs, targets):
    return jnp.sum(outputs) / jnp.sum(targets * 0)


def root(outputs, targets):
    return jnp.sqrt(jnp.mean(jnp.square(outputs - targets)))


class Inverse(nn.Layer):
    """1 / x behind dropout, for inputs below 5."""

    def forward(self, net, x):
        return jnp.where(x < 5, 1 / net.child("drop", nn.Dropout(0.3))(x), 1.0)


class Countdown(nn.Layer):
    """x / the passes that are left, of two."""

    def state(self, x):
        return {"left": nn.Param((), nn.init.constant(1.0))}

    def forward(self, net, x):
        y = x / net.left
        net.update(left=net.left - 1)
        return y


class Branches(nn.Layer):
    """Two branches that both spoil the sum."""

    def forward(self, net, x):
        return net.child("first", jnp.log)(x * 0) + net.child("second", jnp.arccosh)(x * 0) + nn_use(net, x)


def nn_use(net, x):
    return net.child("dense", nn.Dense(3))(x)


def scale(name: str, factor: float) -> Callable[[Any], Any]:
    """Multiply one kernel of the first state."""

    def edit(state):
        layer = state.params[name]
        return dataclasses.replace(state, params=state.params | {name: layer | {"kernel": layer["kernel"] * factor}})

    return edit


def identity(value):
    return value


def planted(tmp_path, model, loss=mse, *, batch=None, optimizer=SGD, edit=identity, gradient=identity, terms=None):
    """Save a step and replay it."""
    batch = BATCH if batch is None else batch
    objective = jdl.supervised(model, loss) if terms is None else jdl.supervised(model, loss) + terms
    state = edit(jdl.init_state(model, optimizer, batch, seed=1))
    state = dataclasses.replace(state, step=jnp.asarray(7, jnp.int32))
    jdl.save_step(tmp_path / "step.safetensors", state, batch)
    found = jdl.replay(tmp_path / "step.safetensors", jdl.make_step(gradient(objective), optimizer))
    assert not any(line != line.rstrip() for line in str(found).splitlines())
    return found


LAYERS = {
    "log of 0": (nn.Chain(cut, jnp.log, nn.Dense(3)), {}, "forward", "1", "in examples [4]", "above 0 and got 0"),
    "exp": (
        nn.Chain(a=nn.Dense(3), b=jnp.exp, c=nn.Dense(3)),
        {"edit": scale("a", 1e3)},
        "forward",
        "b",
        "inf among 18 values",
        "exp overflows above 88.7",
    ),
    "sqrt below 0": (
        nn.Chain(nn.Dense(3), negative_sqrt),
        {},
        "forward",
        "1",
        "NaN",
        "square root needs values from 0",
    ),
    "too large": (
        nn.Chain(nn.Dense(3), nn.Dense(3)),
        {"edit": scale("0", 1e38), "batch": {"inputs": 1e3 * INPUTS, "targets": INPUTS}},
        "forward",
        "0",
        "inf",
        "lower the learning rate",
    ),
    "float16": (
        nn.Precision(nn.Chain(nn.Dense(3), nn.Dense(3)), "float16"),
        {"edit": scale("0", 1e5)},
        "forward",
        "0",
        "inf",
        "float16 ends at 65,504",
    ),
    "own code": (nn.Chain(nn.Dense(3), Inverse(), nn.Dense(3)), {}, "forward", "1", "inf among 18 values", ""),
    "two branches": (Branches(), {}, "forward", "first", "-inf in all 18 values", ""),
    "a mask is innocent": (
        nn.Chain(nn.Dense(3), masking, jax.nn.softmax, nn.Dense(3), negative_sqrt),
        {},
        "forward",
        "4",
        "NaN in all 18 values",
        "square root",
    ),
    "slope of sqrt": (
        nn.Chain(ZEROS, jnp.square, jnp.sqrt),
        {},
        "backward",
        "2",
        "inputs it has -inf in all 18 values",
        "infinite",
    ),
    "where": (
        nn.Chain(ZEROS, guarded_log, nn.Dense(3)),
        {},
        "backward",
        "1",
        "inputs it has NaN in all 18 values",
        "jnp.where",
    ),
}


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_in_a_layer(tmp_path, case):
    model, options, stage, path, what, hint = LAYERS[case]
    found = planted(tmp_path, model, **options)
    assert found.first is not None
    assert (found.first.stage, found.first.path, found.reproduced) == (stage, path, True)
    assert what in found.first.what
    assert hint in found.first.hint
    assert f"step 8 of {tmp_path}" in str(found)
    assert any(not row.finite and row.path.startswith(path) for row in found.rows if row.stage == stage)


ELSEWHERE = {
    "a loss over 0": (nn.Dense(3), over_nothing, {}, "loss", "over_nothing", "inf (outputs"),
    "the slope of a loss": (
        jnp.tanh,
        root,
        {"terms": jdl.l2()},
        "backward",
        "the loss",
        "at the model's output has NaN in all 18",
    ),
    "a penalty": (
        nn.Dense(3),
        mse,
        {"terms": Penalty(("**",), jnp.log, "entropy")},
        "loss",
        "entropy",
        "NaN",
    ),
    "an optimizer": (
        nn.Dense(3),
        mse,
        {"optimizer": optax.scale(float("inf"))},
        "update",
        "params/bias",
        "-inf among 3 values",
    ),
    "moments": (
        nn.Dense(3),
        mse,
        {"optimizer": optax.adam(1e-3), "terms": 1e25 * jdl.l1("kernel")},
        "update",
        "opt_state/0/nu/kernel",
        "inf in all 9 values",
    ),
    "statistics": (
        nn.Chain(nn.Dense(3), nn.BatchNorm(), jax.lax.stop_gradient, nn.Dense(3)),
        mse,
        {"edit": scale("0", 1e25)},
        "new state",
        "1/var",
        "inf in all 3 values",
    ),
}


@pytest.mark.parametrize("case", ELSEWHERE, ids=str)
def test_outside_the_layers(tmp_path, case):
    model, loss, options, stage, path, what = ELSEWHERE[case]
    model = nn.Chain(model, nn.Dense(3)) if model is jnp.tanh else model
    batch = BATCH
    if case == "the slope of a loss":  # a model that gives its targets
        model, batch = nn.Chain(ZEROS, jnp.tanh), {"inputs": INPUTS, "targets": jnp.zeros((6, 3))}
    found = planted(tmp_path, model, loss, batch=batch, **options)
    assert found.first is not None
    assert (found.first.stage, found.first.path) == (stage, path)
    assert what in found.first.what
    assert found.first.hint


def spoil(stage: str):
    def edit(state):
        if stage == "parameters":
            bad = state.params["kernel"].at[1, 1].set(jnp.nan)
            return dataclasses.replace(state, params=state.params | {"kernel": bad})
        trace = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), state.opt_state)
        return dataclasses.replace(state, opt_state=trace)

    return edit


@pytest.mark.parametrize(
    ("stage", "path", "what"),
    [
        ("batch", "inputs", "2 NaN among 18 values in examples [1, 5]"),
        ("parameters", "kernel", "1 NaN among 9 values"),
        ("optimizer state", "0/trace/bias", "inf in all 3 values"),
    ],
)
def test_before_the_step(tmp_path, stage, path, what):
    inputs = INPUTS.at[jnp.array([1, 5]), 0].set(jnp.nan)
    batch = BATCH if stage != "batch" else {"inputs": inputs, "targets": INPUTS}
    edit = identity if stage == "batch" else spoil(stage)
    found = planted(tmp_path, nn.Dense(3), batch=batch, edit=edit, optimizer=optax.sgd(0.1, momentum=0.9))
    assert found.first is not None
    assert (found.first.stage, found.first.path) == (stage, path)
    assert what in found.first.what
    assert "Likely fix" in str(found)


def test_what_a_mask_leaves_out_is_innocent(tmp_path):
    mask = jnp.ones(6).at[2].set(0)
    batch = {"inputs": INPUTS, "targets": INPUTS.at[2].set(jnp.nan), "mask": mask}
    fine = planted(tmp_path, nn.Dense(3), batch=batch)
    assert fine.first is None
    found = planted(tmp_path, nn.Chain(cut, jnp.log, nn.Dense(3)), batch=batch)
    assert found.first is not None
    assert (found.first.stage, found.first.path) == ("forward", "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gradient", "name"),
    [
        (lambda objective: jdl.accumulate(objective, 3), "microbatch 2, 1: log"),
        (lambda objective: jdl.clip_per_example(objective, 1.0), "example 4, 1: log"),
        pytest.param(
            lambda objective: jdl.accumulate(jdl.sharpness_aware(objective), 2),
            "microbatch 1, 1: log",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["accumulate", "clip", "both"],
)
def test_in_a_part_of_the_batch(tmp_path, gradient, name):
    found = planted(tmp_path, nn.Chain(cut, jnp.log, nn.Dense(3)), gradient=gradient)
    assert found.first is not None
    assert found.first.name == name


@pytest.mark.parametrize(
    ("inner", "compiled"),
    [(identity, True), pytest.param(nn.Remat, False, marks=pytest.mark.slow)],
    indirect=["compiled"],
)
def test_in_a_copy(tmp_path, inner):
    block = inner(nn.Chain(nn.Dense(3, kernel_init=nn.init.constant(1.0)), act=eightfold_exp))
    found = planted(tmp_path, nn.Chain(nn.Repeat(block, 4), nn.Dense(3)))
    assert found.first is not None
    assert (found.first.path, found.first.name) == ("0/act", "0/act (copy 1): eightfold_exp")
    assert found.first.name in [row.path for row in found.rows if not row.finite]


@pytest.mark.parametrize("parts", [1, 2])
def test_masks_of_dropout_are_those_of_the_step(tmp_path, parts):
    model = nn.Chain(Inverse(), nn.Dense(3))
    inputs = INPUTS.at[:3].add(10) if parts == 2 else INPUTS  # the first of two parts stays finite
    batch = {"inputs": inputs, "targets": INPUTS}
    found = planted(tmp_path, model, batch=batch, gradient=lambda objective: jdl.accumulate(objective, parts))
    state, last = found.state, inputs[6 - 6 // parts :]
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), parts - 1)
    dropped = np.isinf(nn.probe(model, state.variables, last, key=key, train=True)[2][1].output)
    assert 0 < dropped.sum() < dropped.size
    examples = np.flatnonzero(dropped.any(1)).tolist()
    assert found.first is not None
    assert found.first.name == f"microbatch {parts - 1}, 0: Inverse()"
    assert f"{dropped.sum()} inf among {last.size} values in examples {examples}" in found.first.what


def test_state_is_handed_on_between_parts(tmp_path):
    model = nn.Chain(Countdown(), nn.Dense(3))
    found = planted(tmp_path, model, gradient=lambda objective: jdl.accumulate(objective, 3))
    assert found.first is not None
    assert found.first.name == "microbatch 1, 0: Countdown()"


def test_a_gradient_of_ones_own_is_seen_by_its_results(tmp_path):
    def field(params, state, batch, key):
        grads = jax.tree.map(jnp.zeros_like, params)
        return grads | {"kernel": jnp.full((3, 3), jnp.nan)}, jdl.Aux(jnp.ones(()), None, state, {})

    found = planted(tmp_path, nn.Dense(3), gradient=lambda _: jdl.vector_field(field))
    assert found.first is not None
    assert (found.first.stage, found.first.path) == ("gradient", "kernel")
    assert {row.stage for row in found.rows} >= {"batch", "parameters", "loss", "gradient", "update"}


def test_models_in_the_fields_of_an_objective_of_ones_own(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Game(jdl.Objective):
        models: dict[str, nn.Layer]

        def __call__(self, params, state, batch, key, train):
            first, _ = self.models["first"].apply(params["0"], {}, batch["inputs"], train=train)
            second, _ = self.models["second"].apply({}, {}, first, train=train)
            return jnp.mean(second), jdl.Aux(jnp.mean(second), None, state, {})

    game = Game({"first": nn.Dense(3), "second": nn.Chain(negative_sqrt)})
    found = planted(tmp_path, nn.Chain(nn.Dense(3)), gradient=lambda _: jdl.gradient(game))
    assert found.first is not None
    assert (found.first.stage, found.first.name) == ("forward", "0: negative_sqrt")


def test_an_augmentation_that_makes_them(tmp_path):
    def broken(key, batch):
        return batch | {"inputs": batch["inputs"].at[3].set(jnp.nan)}

    found = planted(tmp_path, nn.Dense(3), gradient=lambda objective: jdl.augmented(objective, broken))
    assert found.first is not None
    assert (found.first.stage, found.first.path) == ("forward", "the model's inputs")
    assert "in examples [3]" in found.first.what


def test_a_step_that_the_optimizer_skips(tmp_path):
    found = planted(tmp_path, nn.Chain(cut, jnp.log, nn.Dense(3)), optimizer=jdl.skip_nonfinite(SGD))
    assert found.reproduced
    assert found.first is not None
    assert (found.first.stage, found.first.path) == ("forward", "1")


def test_a_loss_that_is_scaled(tmp_path):
    model = nn.Precision(nn.Chain(nn.Dense(3), jnp.tanh, nn.Dense(3)), "float16")
    found = planted(tmp_path, model, gradient=jdl.loss_scaled, batch={"inputs": INPUTS, "targets": 1e3 * INPUTS})
    assert found.first is not None
    assert found.first.stage == "backward"
    assert "jdl.loss_scaled" in found.first.hint


@pytest.mark.parametrize(
    ("wrap", "compiled"),
    [pytest.param(jax.jit, True, marks=pytest.mark.slow), pytest.param(jdl.scan_steps, False, marks=pytest.mark.slow)],
    indirect=["compiled"],
)
def test_a_finite_step(tmp_path, wrap):
    model, optimizer = nn.Chain(nn.Embedding(5, 3), nn.Dense(3)), optax.contrib.reduce_on_plateau()  # best_value is inf
    batch = {"inputs": jnp.arange(4), "targets": jnp.zeros(4, jnp.int32)}
    state = jdl.init_state(model, optimizer, batch)
    jdl.save_step(tmp_path / "step.safetensors", state, batch)
    step = wrap(jdl.make_step(jdl.supervised(model, cross_entropy), optimizer))
    found = jdl.replay(tmp_path / "step.safetensors", step)
    assert found.first is None and not found.reproduced
    assert "nothing non-finite here" in str(found)
    assert [row.path for row in found.rows if row.stage == "forward"][1:] == ["0: Embedding(5, 3)", "1: Dense(3)"]
    assert [row.stage for row in found.rows if not row.finite] == ["optimizer state"]


def test_of_a_long_stage_the_table_shows_the_place(tmp_path):
    rows = [replaying.Row("forward", f"layer {i}", "NaN" if i >= 50 else "0 to 1", i < 50) for i in range(100)]
    state = jdl.start_state(nn.Variables({"a": jnp.ones(2)}, {}), SGD, jax.random.key(0))
    first = replaying.First("forward", "layer 50", "layer 50: tanh", "output has NaN", "")
    lines = str(jdl.Replay("x.safetensors", first, tuple(rows), True, state, {}, {})).splitlines()
    assert lines[0] == (
        "step 1 of x.safetensors: the first non-finite value is in the forward pass, in layer 50: tanh: output has NaN"
    )
    assert lines[2:4] == ["  stage    value", "  forward  38 more before"]
    assert lines[4] == "  forward  layer 38        0 to 1"
    assert "! forward  layer 50        NaN" in lines
    assert lines[-1] == "! forward  38 more after"
