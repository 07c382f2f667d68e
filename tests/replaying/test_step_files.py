"""A step as a file: everything comes back, and what does not fit is named."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import jdl
from jdl import nn
from jdl.check import InputError
from tests.networks import batch_of, classify, mlp


@pytest.fixture
def file(tmp_path):
    return tmp_path / "step.safetensors"


def saved(file, optimizer, batch=None, **about):
    batch = batch or batch_of()
    state = jdl.init_state(mlp(), optimizer, batch)
    jdl.save_step(file, state, batch, **about)
    return state, batch


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_everything_comes_back(file):
    model = nn.Chain(nn.Dense(3), nn.BatchNorm())
    optimizer = optax.chain(optax.add_noise(0.1, 0.5, 0), optax.adam(1e-3))
    batch = {
        "inputs": (jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3), [jnp.ones((2, 1), bool)], {}),
        "nothing": None,
        "noise": jax.random.key(3, impl="rbg"),
        "wide": jnp.asarray([1, 2], jnp.int8).astype(jnp.int4),
        "x": np.asarray([[1.5], [np.nan]], np.float16),
    }
    x = jnp.ones((2, 3))
    state = jdl.start_state(model.init(jax.random.key(0), x), optimizer, jax.random.key(1, impl="rbg"))
    jdl.save_step(file, state, batch, reason="loss", where=file)

    def field(params, state, batch, key):
        return jax.tree.map(jnp.zeros_like, params), jdl.Aux(jnp.zeros(()), None, state, {})

    found = jdl.replay(file, jdl.make_step(jdl.vector_field(field), optimizer))
    assert_same(found.state, state)
    assert_same(found.batch, jax.tree.map(jnp.asarray, batch))
    assert found.about["reason"] == "loss"
    assert found.about["where"] == str(file)
    assert found.about["versions"]["jax"] == jax.__version__


def test_the_file_is_plain_safetensors(file):
    state, _ = saved(file, optax.sgd(0.1))
    with safe_open(str(file), framework="np") as plain:
        assert set(plain.keys()) >= {"params/0/kernel", "batch/inputs", "step", "key"}
        np.testing.assert_array_equal(plain.get_tensor("params/0/kernel"), state.params["0"]["kernel"])
        assert json.loads(plain.metadata()["jdl"])["format"] == "jdl step 1"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "there is no such file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-10]), "cannot be read"),
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (lambda file: file.write_text("notes"), "cannot be read"),
        (lambda file: save_file({"x": np.ones(2)}, file), "is no step that jdl saved"),
    ],
    ids=["missing", "cut", "empty", "text", "other"],
)
def test_files_that_cannot_be_read(file, damage, message):
    saved(file, optax.sgd(0.1))
    damage(file)
    with pytest.raises(InputError, match=f"in .*step.safetensors: {message}"):
        jdl.replay(file, jdl.make_step(classify(mlp()), optax.sgd(0.1)))


def test_another_optimizer_is_told_by_path(file):
    saved(file, optax.sgd(0.1, momentum=0.9))
    with pytest.raises(InputError) as error:
        jdl.replay(file, jdl.make_step(classify(mlp()), optax.adam(0.1)))
    lines = str(error.value).splitlines()
    assert "0/mu/0/kernel: float32[5, 7] in the model, missing in the file" in lines
    assert "0/trace/0/kernel: float32[5, 7] in the file, not in the model" in lines


def test_another_model_is_told_by_path(file):
    saved(file, optax.sgd(0.1))
    other = nn.Chain(nn.Dense(9), jnp.tanh, nn.Dense(4))
    with pytest.raises(InputError) as error:
        jdl.replay(file, jdl.make_step(jdl.accumulate(classify(other), 2), optax.sgd(0.1)))
    lines = str(error.value).splitlines()
    assert "0/kernel: float32[5, 7] in the file, float32[5, 9] in the model" in lines
    assert "2/bias: float32[3] in the file, float32[4] in the model" in lines


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"inputs": 3}, "in batch/inputs: got 3, wanted arrays"),
        ({"inputs": jnp.ones(2), 1: jnp.ones(2)}, "got the name 1, wanted a string"),
        ({"inputs": optax.EmptyState()}, r"in batch/inputs: got .*, wanted arrays in dicts, lists and tuples"),
    ],
)
def test_batches_that_cannot_be_kept(file, batch, message):
    state = jdl.init_state(mlp(), optax.sgd(0.1), batch_of())
    with pytest.raises(InputError, match=message):
        jdl.save_step(file, state, batch)
    assert not file.exists()


def test_the_suffix_and_the_step(file):
    state, batch = saved(file, optax.sgd(0.1))
    with pytest.raises(InputError, match=r"wanted \.safetensors"):
        jdl.save_step(file.with_suffix(".npz"), state, batch)
    with pytest.raises(InputError, match=r"step got .*, wanted jdl\.make_step"):
        jdl.replay(file, lambda state, batch: (state, {}))
