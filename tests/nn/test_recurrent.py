"""Recurrent layers: PyTorch's packed sequences, mixed lengths, streams, cells of users, and what is refused."""

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
from jdl.nn import functional as F
from tests.golden import reading
from tests.nn.toys import KEY, Noise, assert_close, assert_equal, normal, refused

GOLDEN = reading.load("recurrent")
CELLS = {"RNNCell": nn.RNNCell, "LSTMCell": nn.LSTMCell, "GRUCell": nn.GRUCell}
X, LENGTHS = jnp.asarray(GOLDEN["x"]), GOLDEN["lengths"]


def below(prefix: str) -> dict[str, Any]:
    """The arrays whose names begin so, as nested dicts."""
    tree: dict[str, Any] = {}
    for name, value in GOLDEN.items():
        if name.startswith(prefix + "/"):
            *path, last = name.removeprefix(prefix + "/").split("/")
            place = tree
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
    return tree


def leaves(kind: str, name: str) -> list[np.ndarray]:
    found = below(f"{kind}/{name}")
    return [found[str(i)] for i in range(len(found))]


def stack(kind: str, features: int = 6) -> nn.StackedRecurrent:
    cell = CELLS[kind](features)
    return nn.StackedRecurrent(nn.Bidirectional(cell), nn.Bidirectional(cell))


# ── against PyTorch ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("kind", CELLS)
def test_packed_sequences_of_two_layers_and_directions(kind):
    model = stack(kind)
    params = below(f"{kind}/params")
    like = jax.eval_shape(lambda: model.apply(params, {}, X, return_carry=True)[0][1])
    carry = jax.tree.unflatten(jax.tree.structure(like), leaves(kind, "carry"))

    @jax.jit
    def everything(params, x, carry):
        def loss(params, x, carry):
            (y, last), _ = model.apply(params, {}, x, lengths=LENGTHS, carry=carry, return_carry=True)
            ends = jax.tree.leaves(last)
            value = jnp.sum(GOLDEN[f"{kind}/weights"] * y)
            return value + sum(np.float32(np.cos(i + 1)) * jnp.sum(end) for i, end in enumerate(ends)), (y, ends)

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(params, x, carry)

    (of_params, of_x, of_carry), (y, ends) = everything(params, X, carry)
    assert_close(y, GOLDEN[f"{kind}/out"], 1e-5)
    assert_close(ends, [jnp.asarray(leaf) for leaf in leaves(kind, "last")], 1e-5)
    assert_close(of_params, below(f"{kind}/grad"), 1e-5)
    assert_close(of_x, GOLDEN[f"{kind}/grad_x"], 1e-5)
    assert_close(jax.tree.leaves(of_carry), leaves(kind, "grad_carry"), 1e-5)


@pytest.mark.slow
def test_parameters_start_as_documented():
    params = nn.LSTMCell(6).init(KEY, nn.LSTMCell(6).initial_carry(X[:, 0]), X[:, 0]).params
    assert params["bias"].tolist() == [0] * 6 + [1] * 6 + [0] * 12
    kernel = np.asarray(params["recurrent_kernel"])
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(6), atol=1e-6)
    assert np.abs(params["kernel"]).max() <= np.sqrt(6 / (5 + 24))
    without = nn.GRUCell(6, bias=False)
    assert set(without.init(KEY, without.initial_carry(X[:, 0]), X[:, 0]).params) == {"kernel", "recurrent_kernel"}


# ── lengths ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("kind", CELLS)
def test_a_batch_of_mixed_lengths_equals_one_by_one(kind):
    model, params = nn.Bidirectional(CELLS[kind](6)), below(f"{kind}/params")["0"]
    run = jax.jit(lambda x, lengths=None: model.apply(params, {}, x, lengths=lengths, return_carry=True)[0])
    y, last = run(X.at[1, 3:].set(1e3), LENGTHS)
    for i, length in list(enumerate(LENGTHS))[:3]:
        alone, end = run(X[i : i + 1, :length])
        assert_close(y[i : i + 1, :length], alone, 1e-6)
        assert not np.any(y[i, length:])
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], last), end, 1e-6)


def test_the_last_step_is_that_of_each_length():
    y = normal(4, 7, 3)
    assert_equal(nn.last_step(y), y[:, -1])
    assert_equal(nn.last_step(y, LENGTHS), jnp.stack([y[i, n - 1] for i, n in enumerate(LENGTHS)]))
    assert_equal(nn.last_step(jnp.arange(8).reshape(2, 4), np.array([1, 4])), jnp.array([0, 7]))


def test_under_jit_an_impossible_length_gives_nan_for_its_example_alone():
    model = nn.Recurrent(nn.LSTMCell(3))
    variables = model.init(KEY, X)
    run = jax.jit(lambda lengths: model(variables, X, lengths=lengths, return_carry=True))
    y, carry = run(np.array([7, 0, 8, 1]))
    for leaf in (y, *carry):
        assert np.isnan(leaf).any(axis=tuple(range(1, leaf.ndim))).tolist() == [False, True, True, False]
    assert np.isnan(jax.jit(nn.last_step)(y, np.array([7, 9, 1, 0]))).any(-1).tolist()[1::2] == [True, True]


@pytest.mark.slow
def test_what_stands_in_the_padding_has_no_part_in_gradients():
    model = nn.Recurrent(nn.LSTMCell(3))
    variables = model.init(KEY, X)

    def loss(params, x):
        return jnp.sum(model(nn.Variables(params, {}), x, lengths=LENGTHS) ** 2)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    for filler in (np.inf, np.nan):
        assert_equal(gradient(variables.params, X.at[1, 3:].set(filler)), gradient(variables.params, X))
    q, k = normal(2, 3, 1, 4), normal(2, 5, 1, 4, seed=1)
    of = jax.grad(lambda q, k: jnp.sum(F.attention(q, k, k, lengths=np.array([5, 2])) ** 2), argnums=(0, 1))
    assert_equal(of(q, k.at[1, 2:].set(np.nan)), of(q, k))


@pytest.mark.slow
def test_lengths_of_few_bits_count_long_sequences():
    x = jnp.ones((1, 200, 1))
    lengths = np.array([5], np.int8)
    assert nn.last_step(x, lengths).tolist() == [[1]]
    model = nn.Recurrent(nn.RNNCell(2))
    assert np.all(np.isfinite(model(model.init(KEY, x), x, lengths=lengths)))
    with jax.enable_x64(True):  # where other whole numbers are of 64 bits
        x, lengths, model = np.ones((2, 3, 1)), np.array([3, 1], np.int32), nn.Bidirectional(nn.LSTMCell(2))
        y = jax.eval_shape(lambda: nn.last_step(model(model.init(KEY, x), x, lengths=lengths), lengths))
        assert y.dtype == np.float64


@pytest.mark.slow
def test_over_devices_each_takes_its_own_sequences():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("devices",))
    model = nn.Bidirectional(nn.LSTMCell(3), Counting())
    variables = model.init(KEY, X)
    whole, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("devices")
    run = jax.shard_map(
        lambda v, x, n: model(v, x, lengths=n), mesh=mesh, in_specs=(whole, split, split), out_specs=split
    )
    assert_close(jax.jit(run)(variables, X, LENGTHS), model(variables, X, lengths=LENGTHS), 1e-6)


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────────

STREAMED = {
    "RNN": lambda: nn.Recurrent(nn.RNNCell(4)),
    "stack in a chain": lambda: nn.Chain(
        nn.Dense(4), nn.StackedRecurrent(nn.LSTMCell(5), nn.GRUCell(3), dropout=0.3), nn.Dense(2)
    ),
    "repeated": lambda: nn.Repeat(nn.Residual(nn.Recurrent(nn.GRUCell(5))), 3),
    "ensemble": lambda: nn.Ensemble(nn.Recurrent(nn.LSTMCell(2)), 2),
    "rematerialised": lambda: nn.Remat(nn.Recurrent(nn.LSTMCell(2))),
    "in half precision": lambda: nn.Precision(nn.Recurrent(nn.GRUCell(3))),
    "a user's cell": lambda: nn.Recurrent(Counting()),
}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("stack in a chain", 1),
        ("a user's cell", 1),
        *(pytest.param(name, 3, marks=pytest.mark.slow) for name in STREAMED),
    ],
)
def test_a_stream_gives_the_numbers_of_the_whole_sequence(name, size):
    model = STREAMED[name]()
    variables = model.init(KEY, X)
    start = nn.with_carry(model, variables, X[:, :1])
    step = jax.jit(lambda state, x: model.apply(variables.params, state, x))
    state, parts = start.state, []
    for t in range(0, X.shape[1], size):
        y, state = step(state, X[:, t : t + size])
        parts.append(y)
    assert_close(jnp.concatenate(parts, axis=-2), jax.jit(model)(variables, X), 1e-6)
    assert jax.tree.structure(state) == jax.tree.structure(start.state)
    again, _ = step(start.state, X[:, :size])  # the first variables still begin a sequence
    assert_equal(again, parts[0])


def test_a_carry_given_goes_before_the_one_kept():
    model = nn.Recurrent(nn.GRUCell(3))
    variables = model.init(KEY, X)
    state = model.apply(*nn.with_carry(model, variables, X), X)[1]
    zeros = jnp.zeros((4, 3))
    assert_equal(model.apply(variables.params, state, X, carry=zeros)[0], model(variables, X))


@pytest.mark.slow
def test_fit_carries_on_from_batch_to_batch():
    model = nn.Chain(nn.Recurrent(nn.RNNCell(3)), nn.last_step, nn.Dense(1))
    data = (np.asarray(normal(8, 2, 5)), np.asarray(normal(8, 1, seed=1)))
    variables = nn.with_carry(model, model.init(KEY, data[0][:4]), data[0][:4])
    run = jdl.fit(model, jdl.losses.mse, optax.sgd(0.1), data, variables=variables, epochs=1, batch_size=4)
    carry = run.state.state["0"]["carry"]["0"]
    assert carry.shape == (4, 3) and np.any(carry != 0)


# ── composition ───────────────────────────────────────────────────────────────────────────────────────────────────


class Counting(nn.Cell):
    """A leaky sum whose carry is a dict, and begins at 1: a cell of a user's."""

    def initial_carry(self, x):
        return {"sum": jnp.ones_like(x), "steps": jnp.ones((x.shape[0], 1), x.dtype)}

    def forward(self, net, carry, x):
        total = carry["sum"] / 2 + net.child("scale", nn.Dense(x.shape[-1]))(x)
        return {"sum": total, "steps": carry["steps"] + 1}, total / carry["steps"]


def test_a_users_cell_by_hand():
    model = nn.Recurrent(Counting())
    variables = model.init(KEY, X)
    y, carry = model(variables, X, return_carry=True)
    kernel, total = np.asarray(variables.params["scale"]["kernel"]), np.ones((4, 5), np.float32)
    for t in range(7):
        total = total / 2 + np.asarray(X[:, t]) @ kernel
        np.testing.assert_allclose(y[:, t], total / (t + 1), rtol=1e-5, atol=1e-6)
    assert carry["steps"].tolist() == [[8]] * 4


@pytest.mark.slow
def test_dropout_stands_between_the_layers_only_and_draws_for_each():
    cell = nn.RNNCell(6, activation=jnp.positive, bias=False, recurrent_init=nn.init.normal())
    model = nn.StackedRecurrent(cell, cell, cell, dropout=0.5)
    variables = model.init(KEY, X)
    run = jax.jit(lambda key: model.apply(*variables, X, key=key, train=True)[0])
    assert np.all(run(KEY) != 0), "nothing is dropped after the last layer"
    assert np.any(run(KEY) != run(jax.random.key(1)))
    assert_equal(model(variables, X), dataclasses.replace(model, dropout=0.0)(variables, X))
    alone = dataclasses.replace(model, layers=[cell])
    assert alone == nn.StackedRecurrent(cell, dropout=0.5) and alone != dataclasses.replace(alone, dropout=0.0)
    assert_equal(alone.apply(*alone.init(KEY, X), X, train=True)[0], alone(alone.init(KEY, X), X))


def test_a_carry_of_keys_stays_where_a_sequence_ends():
    class Noisy(nn.Cell):
        def initial_carry(self, x):
            return jax.random.split(KEY, len(x))

        def forward(self, net, carry, x):
            keys = jax.vmap(jax.random.split)(carry)
            return keys[:, 0], x + jax.vmap(jax.random.normal)(keys[:, 1])[:, None]

    run = jax.jit(lambda n: nn.Recurrent(Noisy()).apply({}, {}, X, lengths=n, return_carry=True)[0])
    (y, keys), (whole, ends) = run(LENGTHS), run(None)
    assert_equal(y, jnp.where(F.real_steps(LENGTHS, 7)[..., None], whole, 0))
    assert np.any(jax.random.key_data(keys) != jax.random.key_data(ends), -1).tolist() == (LENGTHS != 7).tolist()


def test_inside_a_users_scan_over_time_equals_the_layer():
    cell, model = nn.GRUCell(3), nn.Recurrent(nn.GRUCell(3))
    variables = model.init(KEY, X)
    _, ys = jax.lax.scan(lambda h, x: cell(variables, h, x), cell.initial_carry(X[:, 0]), X.swapaxes(0, 1))
    assert_close(ys.swapaxes(0, 1), model(variables, X), 1e-6)


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────


class Drawing(nn.Cell):
    def initial_carry(self, x):
        return x[:, :0]

    def forward(self, net, carry, x):
        return carry, net.child("noise", Noise())(x)


def recurrent(**options: Any) -> Any:
    model = nn.Recurrent(nn.LSTMCell(3))
    return model(model.init(KEY, X), **({"x": X} | options))


class Twice(nn.Layer):
    rnn: nn.Layer = nn.Recurrent(nn.RNNCell(3))

    def forward(self, net, x):
        return net.rnn(x) + net.rnn(2 * x)


class Wrong(nn.Cell):
    """What it starts from, and what its step gives, by a name."""

    what: str

    def initial_carry(self, x):
        return 0.0 if self.what == "start" else x[:, :1]

    def forward(self, net, carry, x):
        return {"single": x, "wider": (x, x), "start": (carry, x)}[self.what]


def streamed(model: nn.Layer) -> nn.Variables:
    return nn.with_carry(model, model.init(KEY, X), X[:, :1])


REFUSED = {
    "length zero": (lambda: recurrent(lengths=np.array([7, 0, 1, 2])), "lengths got 0 for example 1", "leave empty"),
    "length beyond": (lambda: recurrent(lengths=np.array([7, 1, 1, 8])), "lengths got 8 for example 3", "7 steps"),
    "lengths of floats": (lambda: recurrent(lengths=np.ones(4)), "lengths got float32[4]", "integer"),
    "lengths of another batch": (lambda: recurrent(lengths=np.ones(3, int)), "int32[3]", "same batch size"),
    "lengths in columns": (lambda: recurrent(lengths=np.ones((4, 1), int)), "int32[4, 1]", "[B]"),
    "carry of another batch": (
        lambda: recurrent(carry=(jnp.zeros((2, 3)), jnp.zeros((2, 3)))), "float32[2, 3]", "float32[4, 3]", "batch size",
    ),
    "carry of another dtype": (
        lambda: recurrent(carry=(jnp.zeros((4, 3), jnp.bfloat16),) * 2), "bfloat16[4, 3]", "wanted (float32[4, 3]",
    ),
    "carry of another cell": (lambda: recurrent(carry=jnp.zeros((4, 3))), "carry got float32[4, 3]", "(float32[4, 3]"),
    "carry of another stack": (
        lambda: stack("GRUCell").init(KEY, X, carry=(None,)), "carry got 1 parts", "a tuple of 2",
    ),
    "one step": (lambda: recurrent(x=X[:, 0]), "input got float32[4, 5]", "[B, T, D]"),
    "ids": (lambda: recurrent(x=jnp.ones((4, 7), int)), "input got int32[4, 7]", "nn.Embedding"),
    "whole numbers": (lambda: recurrent(x=jnp.ones((4, 7, 5), int)), "floating"),
    "no steps": (lambda: recurrent(x=X[:, :0]), "float32[4, 0, 5]", "at least one"),
    "another width": (lambda: recurrent(x=X[..., :4]), "kernel"),
    "a cell along a sequence": (
        lambda: nn.GRUCell(3).init(KEY, jnp.zeros((4, 3)), X), "float32[4, 7, 5]", "nn.Recurrent(cell)",
    ),
    "no cell": (lambda: nn.Recurrent(nn.Dense(3)), "Recurrent.cell got Dense(3)", "nn.GRUCell(128)"),  # pyright: ignore
    "no layers": (lambda: nn.StackedRecurrent(), "StackedRecurrent got no layers"),
    "a dense layer in a stack": (lambda: nn.StackedRecurrent(nn.Dense(3)), "Dense(3) as layer 0"),
    "width": (lambda: nn.GRUCell(0), "GRUCell.features got 0"),
    "a rate of one": (lambda: nn.StackedRecurrent(nn.GRUCell(3), dropout=1.0), "Dropout.rate"),
    "a cell that draws": (
        lambda: nn.Recurrent(Drawing()).apply({}, {}, X, key=KEY, train=True), "draws a key", "key=k",
    ),
    "a stream backwards": (
        lambda: nn.with_carry(nn.Bidirectional(nn.GRUCell(3)), nn.Bidirectional(nn.GRUCell(3)).init(KEY, X), X),
        "backwards", "stream a forward layer",
    ),
    "a stream of nothing": (
        lambda: nn.with_carry(nn.Dense(2), nn.Dense(2).init(KEY, X), X), "with_carry got Dense", "nn.Recurrent",
    ),
    "a stream of another batch": (
        lambda: nn.Recurrent(nn.GRUCell(3)).apply(
            *nn.with_carry(model := nn.Recurrent(nn.GRUCell(3)), model.init(KEY, X), X), X[:2]
        ),
        "float32[4, 3]", "float32[2, 3]", "batch size",
    ),
    "a stream of a layer used twice": (lambda: streamed(Twice()), "in rnn", "used twice in one pass"),
    "a stream whose carry was unfrozen": (
        lambda: (model := nn.Recurrent(nn.GRUCell(3))).apply(
            *jdl.unfreeze(jdl.freeze(streamed(model), "**"), "**"), X
        ),
        "'carry' is state and stands in params",
    ),
    "a cell in place of a layer": (
        lambda: nn.Chain(nn.Dense(2), nn.GRUCell(3)).init(KEY, X), "in 1: GRUCell(3)", "wanted (carry, x [B, D])",
        "nn.Recurrent(GRUCell(3))",
    ),
    "a user's cell in place of a layer": (
        lambda: Drawing()(nn.Variables({}, {}), X), "a cell got float32[4, 7, 5] alone", "nn.Recurrent(Drawing())",
    ),
    "a carry in a list": (
        lambda: recurrent(carry=[jnp.zeros((4, 3))] * 2), "carry got list (float32", "wanted tuple (float32",
    ),
    "a cell that returns its output alone": (lambda: nn.Recurrent(Wrong("single")).init(KEY, X), "wanted a pair"),
    "a cell that changes its carry": (
        lambda: nn.Recurrent(Wrong("wider")).init(KEY, X),
        "the carry that Wrong('wider') returned got float32[4, 5], wanted float32[4, 1]",
    ),
    "a cell that starts from a number": (
        lambda: nn.Recurrent(Wrong("start")).init(KEY, X), "Wrong('start').initial_carry made 0.0", "[4, ...]",
    ),
    "nothing": (lambda: recurrent(x=None), "input got None", "[B, T, D]"),
    "last step of none": (lambda: nn.last_step(X[:, :0]), "float32[4, 0, 5]", "at least one step"),
    "last step of a vector": (lambda: nn.last_step(jnp.ones(3)), "float32[3]", "[B, T, ...]"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, *parts = REFUSED[name]
    with refused(*parts):
        call()


def test_the_functions_say_what_the_layers_compute():
    h, z, kernel = normal(4, 6), normal(4, 18, seed=1), normal(6, 18, seed=2)
    r, u, n = np.split(np.asarray(z), 3, -1)
    a, b, c = np.split(np.asarray(h @ kernel), 3, -1)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    new = np.tanh(n + sigmoid(r + a) * c)
    gate = sigmoid(u + b)
    np.testing.assert_allclose(F.gru_step(h, z, kernel), (1 - gate) * new + gate * np.asarray(h), atol=1e-5)
