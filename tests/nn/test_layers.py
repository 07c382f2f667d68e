"""The layers: PyTorch's values and gradients through init and apply, and what a layer adds to its function."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import PartitionSpec as P

from jdl import nn
from jdl.check import InputError
from jdl.nn.shape import Resize
from tests.golden import reading
from tests.networks import mesh_of_two

KEY = jax.random.key(0)
SUBJECTS = ("conv", "pool", "norm", "dense")
CASES = {name: case for subject in SUBJECTS for name, case in reading.cases(subject).items()}
NAMES = {
    "conv": nn.Conv,
    "conv_transpose": nn.ConvTranspose,
    "max_pool": nn.MaxPool,
    "average_pool": nn.AveragePool,
    "global_max_pool": nn.GlobalMaxPool,
    "global_average_pool": nn.GlobalAveragePool,
    "upsample": nn.Upsample,
    "resize": Resize,
    "batch_norm": nn.BatchNorm,
    "layer_norm": nn.LayerNorm,
    "rms_norm": nn.RMSNorm,
    "group_norm": nn.GroupNorm,
    "instance_norm": nn.InstanceNorm,
    "dense": nn.Dense,
    "embedding": nn.Embedding,
}


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def layer_of(case: reading.Case) -> nn.Layer:
    make, arrays, options = NAMES[case.function], case.inputs, dict(case.options)
    if "kernel" in arrays:
        options |= {"features": arrays["kernel"].shape[-1], "bias": "bias" in arrays}
        if make is not nn.Dense:
            options["kernel_size"] = arrays["kernel"].shape[:-2]
    if make is nn.Embedding:
        options["vocabulary_size"], options["features"] = arrays["table"].shape
    if case.function.endswith("norm"):
        options["scale"] = "scale" in arrays
        if make is not nn.RMSNorm:
            options["bias"] = "bias" in arrays
    return make(**options)


def split(case: reading.Case) -> tuple[dict, dict, np.ndarray]:
    """Parameters, state and input of a case."""
    arrays = dict(case.inputs)
    x = arrays.pop("ids" if "ids" in arrays else "x")
    state = {name: arrays.pop(name) for name in ("mean", "var") if name in arrays}
    return arrays, state, x


@functools.cache
def results() -> dict[str, Any]:
    """Outputs and gradients of every case through its layer, as one compiled program."""

    def everything(inputs):
        found = {}
        for name, (params, state, x) in inputs.items():

            def objective(params, x, name=name, state=state):
                out, _ = layer_of(CASES[name]).apply(params, state, x)
                return jnp.sum(out * CASES[name].weights), out

            trained = (0, 1) if jnp.issubdtype(x.dtype, jnp.floating) else 0
            grads, out = jax.grad(objective, trained, has_aux=True)(params, x)
            found[name] = out, grads
        return found

    return jax.jit(everything)({name: split(case) for name, case in CASES.items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_pytorch(name):
    case, (out, grads) = CASES[name], results()[name]
    assert_close(out, case.out)
    params, x = grads if isinstance(grads, tuple) else (grads, None)
    for argument, gradient in params.items() if x is None else [*params.items(), ("x", x)]:
        assert_close(gradient, case.grads[argument])


@pytest.mark.parametrize("name", CASES)
def test_init_declares_what_the_layer_reads_and_the_dtype_of_the_input_is_kept(name):
    layer, (params, state, x) = layer_of(CASES[name]), split(CASES[name])
    spec = layer.spec(jax.ShapeDtypeStruct(x.shape, x.dtype))
    assert jax.tree.map(lambda p: p.shape, (spec.params, spec.state)) == jax.tree.map(np.shape, (params, state))
    floating = np.issubdtype(x.dtype, np.floating)
    x = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16 if floating else x.dtype)
    out, new = jax.eval_shape(functools.partial(layer.apply, train=True), params, state, x)
    assert out.dtype == (jnp.bfloat16 if floating else jnp.float32)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), new) == jax.tree.map(lambda a: (a.shape, a.dtype), state)


@pytest.mark.parametrize("name", CASES)
def test_layers_are_values(name):
    layer = layer_of(CASES[name])
    again = pickle.loads(pickle.dumps(layer))
    assert again == layer_of(CASES[name]) and hash(again) == hash(layer) and repr(again) == repr(layer)


# What a layer begins with


@pytest.mark.parametrize(
    ("layer", "shape", "kernel_shape", "fan_in"),
    [
        (nn.Dense(400), (2, 300), (300, 400), 300),
        (nn.Conv(128, 3), (2, 8, 8, 64), (3, 3, 64, 128), 576),
        (nn.Conv(128, (5,), groups=4), (2, 8, 64), (5, 16, 128), 80),
        (nn.ConvTranspose(128, (2, 2, 2)), (2, 3, 3, 3, 64), (2, 2, 2, 64, 128), 512),
    ],
)
def test_kernels_begin_as_he_and_biases_at_zero(layer, shape, kernel_shape, fan_in):
    params, state = layer.init(KEY, jnp.ones(shape))
    assert params["kernel"].shape == kernel_shape and state == {}
    assert float(jnp.std(params["kernel"])) == pytest.approx(np.sqrt(2 / fan_in), rel=0.03)
    np.testing.assert_array_equal(params["bias"], np.zeros(kernel_shape[-1]))


def test_embeddings_begin_about_one_long():
    table = nn.Embedding(1000, 64).init(KEY, jnp.zeros((2, 3), jnp.int32)).params["table"]
    assert float(jnp.linalg.norm(table, axis=-1).mean()) == pytest.approx(1, abs=0.02)


def test_an_int_kernel_size_is_that_of_an_image():
    assert nn.Conv(4, 3).spec(jnp.ones((2, 5, 5, 3))).params["kernel"].shape == (3, 3, 3, 4)


# BatchNorm


@pytest.mark.parametrize("name", ["2", "4"])
def test_batch_norm_trains_as_pytorch_does(name):
    """Two steps; the running variance is the biased one, which the golden file holds beside PyTorch's mean."""
    arrays, prefix, layer = reading.load("norm"), f"running_{name}", nn.BatchNorm()
    params = {key: arrays[f"{prefix}/{key}"] for key in ("scale", "bias")}
    state = layer.init(KEY, arrays[f"{prefix}/0/x"]).state

    @jax.jit
    def step(params, state, x, weights):
        def objective(params, x):
            out, new = layer.apply(params, state, x, train=True)
            return jnp.sum(out * weights), (out, new)

        return jax.grad(objective, (0, 1), has_aux=True)(params, x)

    for k in range(2):
        golden = {key.removeprefix(f"{prefix}/{k}/"): value for key, value in arrays.items()}
        (grads, grad_x), (out, state) = step(params, state, golden["x"], golden["weights"])
        found = {"out": out, "grad_x": grad_x} | {f"grad_{key}": value for key, value in grads.items()} | state
        for key, value in found.items():
            assert_close(value, golden[key])


def test_batch_norm_in_evaluation_reads_its_state_and_leaves_it():
    layer, x = nn.BatchNorm(), jax.random.normal(KEY, (1, 3))
    variables = layer.init(KEY, x)  # a single example is enough to begin
    out, state = layer.apply(*variables, x)
    np.testing.assert_allclose(out, x / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert state is variables.state


@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_momentum_is_the_share_of_the_running_value_that_is_kept(momentum):
    layer, x = nn.BatchNorm(momentum), jnp.array([[1.0], [5.0]])
    _, state = layer.apply(*layer.init(KEY, x), x, train=True)
    np.testing.assert_allclose(state["mean"], [(1 - momentum) * 3])
    np.testing.assert_allclose(state["var"], [momentum + (1 - momentum) * 4])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["vmap", "shard_map"])
def test_batch_norm_over_devices_is_that_of_the_whole_batch(how):
    x = jax.random.normal(KEY, (6, 3)) + jnp.arange(6.0)[:, None]
    whole = nn.BatchNorm()
    variables = whole.init(KEY, x)
    expected, expected_state = whole.apply(*variables, x, train=True)

    layer = nn.BatchNorm(axis_name="devices")
    assert jax.tree.map(jnp.shape, layer.init(KEY, x)) == jax.tree.map(jnp.shape, variables)

    def step(x):
        return layer.apply(*variables, x, train=True)

    if how == "vmap":
        out, state = jax.vmap(step, axis_name="devices")(x.reshape(2, 3, 3))
        out, state = out.reshape(6, 3), jax.tree.map(lambda a: a[1], state)
    else:
        out, state = jax.shard_map(step, mesh=mesh_of_two(), in_specs=P("devices"), out_specs=(P("devices"), P()))(x)
    assert_close(out, expected, 1e-6)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-6), state, expected_state)


def test_batch_norm_over_devices_needs_the_name_of_their_axis():
    layer, x = nn.Chain(norm=nn.BatchNorm()), jnp.ones((4, 3))
    params, state = layer.init(KEY, x)

    def run(x, *, train):
        return layer.apply(params, state, x, train=train)[0]

    sharded = functools.partial(jax.shard_map, mesh=mesh_of_two(), in_specs=P("devices"), out_specs=P("devices"))
    with pytest.raises(InputError, match=r"in norm: BatchNorm\(\).*devices of 'devices'.*use axis_name='devices'"):
        sharded(functools.partial(run, train=True))(x)
    sharded(functools.partial(run, train=False))(x)  # evaluation has its statistics


# Dropout


def test_dropout_acts_in_training_alone():
    layer, x = nn.Dropout(0.5), jnp.ones((40, 50))
    assert layer.apply({}, {}, x)[0] is x
    out, _ = layer.apply({}, {}, x, train=True, key=KEY)
    assert set(np.unique(out)) == {0.0, 2.0}
    assert float(out.mean()) == pytest.approx(1, abs=5 / np.sqrt(2000))
    other, _ = layer.apply({}, {}, x, train=True, key=jax.random.key(1))
    assert bool(jnp.any(out != other))
    assert nn.Dropout(0.0).apply({}, {}, x, train=True)[0] is x  # nothing is drawn, no key is needed


# Embedding


class Tied(nn.Layer):
    """An embedding that is also the output layer."""

    def forward(self, net, ids):
        embed = net.child("embed", nn.Embedding(7, 4))
        return embed.attend(embed(ids))


def test_attend_scores_every_row_of_the_table():
    ids = jnp.array([[1, 6, 0]])
    variables = Tied().init(KEY, ids)
    table = variables.params["embed"]["table"]
    assert jax.tree.map(jnp.shape, variables.params) == {"embed": {"table": (7, 4)}}
    np.testing.assert_allclose(Tied()(variables, ids), table[ids] @ table.T, rtol=1e-5)


# Shapes


def test_shapes():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    for layer, shape in [
        (nn.Flatten(), (2, 12)),
        (nn.Reshape((4, 3)), (2, 4, 3)),
        (nn.Reshape((2, -1, 3)), (2, 2, 2, 3)),
        (nn.Reshape([-1]), (2, 12)),
        (nn.Reshape(()), None),
    ]:
        if shape is None:
            assert layer.apply({}, {}, x[:, 0, 0])[0].shape == (2,)
        else:
            np.testing.assert_array_equal(layer.apply({}, {}, x)[0], x.reshape(shape))
    assert nn.Flatten().apply({}, {}, jnp.ones(3))[0].shape == (3, 1)
    assert nn.Flatten().apply({}, {}, jnp.ones((0, 3, 4)))[0].shape == (0, 12)


# The neuron and the perceptron


def test_a_neuron_and_both_forms_of_a_perceptron_agree():
    x = jax.random.normal(KEY, (200, 5))
    neuron = nn.Neuron(nn.linear)
    params, _ = neuron.init(KEY, x)
    assert jax.tree.map(jnp.shape, params) == {"kernel": (5,), "bias": ()}
    params["bias"] = jnp.array(0.3)
    z = np.asarray(x, np.float64) @ np.asarray(params["kernel"], np.float64) + 0.3
    assert_close(neuron.apply(params, {}, x)[0], z, 1e-6)
    fires, _ = nn.Perceptron().apply(params, {}, x)
    np.testing.assert_array_equal(fires, z > 0)
    threshold = {"kernel": params["kernel"], "threshold": -params["bias"]}
    np.testing.assert_array_equal(nn.Perceptron("threshold").apply(threshold, {}, x)[0], fires)


@pytest.mark.slow
def test_a_perceptron_begins_at_zero_and_its_step_has_no_gradient():
    x = jnp.ones((3, 2))
    params, _ = nn.Perceptron("threshold").init(KEY, x)
    np.testing.assert_array_equal(params["kernel"], [0, 0])
    grads = jax.grad(lambda params: nn.Perceptron("threshold").apply(params, {}, x)[0].sum())(params)
    assert not any(map(np.any, jax.tree.leaves(grads)))


# All of them at once


@pytest.mark.slow
def test_a_batch_of_unknown_size_can_be_exported():
    model = nn.Chain(
        nn.Conv(8, 3),
        nn.BatchNorm(),
        nn.MaxPool(2),
        nn.GroupNorm(2),
        nn.ConvTranspose(4, 3, stride=2),
        nn.InstanceNorm(),
        nn.AveragePool(3, 2, "SAME"),
        nn.Upsample(2, "linear"),
        nn.Reshape((-1, 4)),
        nn.Dense(3),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Dense(10),
    )
    params, state = model.init(KEY, jnp.ones((1, 8, 8, 1)))

    def gradient(params, x, key):
        return jax.grad(lambda params: (model.apply(params, state, x, train=True, key=key)[0] ** 2).mean())(params)

    size, *_ = export.symbolic_shape("b")
    exported = export.export(jax.jit(gradient))(params, jax.ShapeDtypeStruct((size, 8, 8, 1), jnp.float32), KEY)
    assert [aval.shape for aval in exported.out_avals] == [leaf.shape for leaf in jax.tree.leaves(params)]


# Refusals


def ran(layer: nn.Layer, *shape: int, dtype: Any = jnp.float32, train: bool = False):
    x = jax.ShapeDtypeStruct(shape, dtype)
    spec = layer.spec(x)
    params, state = (
        jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), tree) for tree in (spec.params, spec.state)
    )
    return jax.eval_shape(functools.partial(layer.apply, train=train), params, state, x)


REFUSED = {
    "features": (lambda: nn.Dense(0), r"Dense\.features got 0, wanted a positive int"),
    "float_features": (lambda: nn.Dense(2.5), r"Dense\.features got 2\.5, wanted a positive int"),
    "kernel_size": (lambda: nn.Conv(4, ()), r"Conv\.kernel_size got \(\), wanted a positive int"),
    "kernel_sizes": (lambda: nn.Conv(4, (3, 3, 3, 3)), r"Conv\.kernel_size got .*, wanted an int or 1 to 3"),
    "transposed": (lambda: nn.ConvTranspose(4, 3, stride=0), r"ConvTranspose\.stride got 0"),
    "output_padding": (lambda: nn.ConvTranspose(4, 3, output_padding=-1), "wanted an int of at least 0"),
    "groups": (lambda: nn.GroupNorm(0), r"GroupNorm\.groups got 0"),
    "window": (lambda: nn.AveragePool(2, stride=0), r"AveragePool\.stride got 0"),
    "momentum": (lambda: nn.BatchNorm(momentum=1.1), r"momentum got 1\.1, wanted 0 to 1, the share that is kept"),
    "rate": (lambda: nn.Dropout(1.0), r"Dropout\.rate got 1\.0, .* the share that is dropped"),
    "vocabulary": (lambda: nn.Embedding(0, 4), r"Embedding\.vocabulary_size got 0"),
    "factor": (lambda: nn.Upsample(0), r"Upsample\.factor got 0"),
    "size": (lambda: Resize((4, 0)), r"Resize\.size got \(4, 0\)"),
    "shape": (lambda: nn.Reshape((-1, -1)), r"Reshape\.shape got \(-1, -1\), .* at most one of them -1"),
    "form": (lambda: nn.Perceptron("step"), r'Perceptron\.form got \'step\', wanted "bias" or "threshold"'),
    "dense_int": (lambda: ran(nn.Dense(3), 2, 4, dtype=jnp.int32), r"Dense\(3\): .*int32\[2, 4\].*x\.astype"),
    "dense_number": (lambda: ran(nn.Dense(3)), r"float32\[\], wanted \[\.\.\., C\]"),
    "conv_int": (lambda: ran(nn.Conv(3, 3), 2, 8, 8, 3, dtype=jnp.uint8), r"Conv\(3, 3\): .*uint8\[2, 8, 8, 3\]"),
    "conv_rank": (lambda: ran(nn.Conv(3, 3), 2, 8, 8), r"wanted \[B, H, W, C\]; add a channel axis with x"),
    "conv_sequence": (lambda: ran(nn.Conv(8, 3), 2, 7, 4), r"sequences \[B, W, C\] has one axis, \(3,\) instead of 3"),
    "conv_groups": (lambda: ran(nn.Conv(4, 3, groups=4), 2, 8, 8, 6), r"groups got 4, wanted a divisor of the 6"),
    "conv_window": (lambda: ran(nn.Conv(4, 5, padding="VALID"), 2, 4, 4, 3), r"covers \(5, 5\) cells but the padded"),
    "pool_window": (lambda: ran(nn.MaxPool(5), 2, 4, 4, 3), r"MaxPool\(5\): the window covers \(5, 5\)"),
    "norm_int": (lambda: ran(nn.LayerNorm(), 2, 4, dtype=jnp.int32), r"LayerNorm\(\): .*int32\[2, 4\]"),
    "norm_groups": (lambda: ran(nn.GroupNorm(4), 2, 6), r"groups got 4, wanted a divisor of the 6 channels"),
    "norm_cell": (lambda: ran(nn.InstanceNorm(), 2, 1, 1, 6), r"InstanceNorm\(\): .*more than one cell"),
    "norm_value": (lambda: ran(nn.BatchNorm(), 1, 6, train=True), r"BatchNorm\(\): .*float32\[1, 6\].*GroupNorm"),
    "dropout_int": (lambda: ran(nn.Dropout(0.1), 2, dtype=jnp.int32), r"Dropout\(0\.1\): .*int32\[2\]"),
    "embedding_float": (lambda: ran(nn.Embedding(7, 4), 2, 3), r"Embedding\(7, 4\): ids got float32\[2, 3\]"),
    "reshape": (lambda: ran(nn.Reshape((5, -1)), 2, 3, 4), r"12 entries an example, which do not fill \(5, -1\)"),
    "flatten": (lambda: ran(nn.Flatten()), r"Flatten\(\): .*float32\[\], wanted \[B, \.\.\.\]"),
    "upsample": (lambda: ran(nn.Upsample(2, "cubic"), 2, 3, 3, 1), r'method got "cubic", wanted "nearest" or "linear"'),
    "neuron_int": (lambda: ran(nn.Neuron(), 2, 3, dtype=jnp.int32), r"Neuron\(\): .*int32\[2, 3\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_plain_words(name):
    act, words = REFUSED[name]
    with pytest.raises(InputError, match=words):
        act()
