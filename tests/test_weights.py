"""Weights on disk: what other readers of safetensors see, what is refused, and how names are mapped."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import jdl
from jdl import nn

DTYPES = [
    "bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "float32", "complex64",
    "bfloat16", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


def network() -> nn.Chain:
    return nn.Chain(nn.Dense(4), nn.BatchNorm(), jnp.tanh, nn.Dense(3))


def variables_of(model: nn.Layer, seed: int = 0) -> jdl.Variables:
    """As initialised, but with no two arrays alike."""
    variables = model.init(jax.random.key(seed), jnp.ones((2, 5)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), variables)


def assert_same(a, b) -> None:
    """Structure, dtype and bytes."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_variables_come_back(tmp_path):
    variables = variables_of(network())
    jdl.save_weights(tmp_path / "w.safetensors", variables)
    abstract = jax.eval_shape(network().init, jax.random.key(0), jnp.ones((2, 5)))
    for like in (variables, abstract):
        loaded = jdl.load_weights(tmp_path / "w.safetensors", like)
        assert_same(loaded, variables)
        assert not any(leaf.weak_type or leaf.committed for leaf in jax.tree.leaves(loaded))


def test_arrays_lie_where_those_of_like_lie(tmp_path):
    variables = variables_of(network())
    jdl.save_weights(tmp_path / "w.safetensors", variables)
    device = jax.devices()[-1]
    loaded = jdl.load_weights(tmp_path / "w.safetensors", jax.device_put(variables, device))
    assert all(leaf.devices() == {device} and leaf.committed for leaf in jax.tree.leaves(loaded))


def test_the_reader_of_safetensors_sees_the_arrays_by_path(tmp_path):
    variables = variables_of(network())
    jdl.save_weights(tmp_path / "w.safetensors", variables)
    read = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    assert sorted(read) == [
        "params/0/bias", "params/0/kernel", "params/1/bias", "params/1/scale", "params/3/bias", "params/3/kernel",
        "state/1/mean", "state/1/var",
    ]  # fmt: skip
    np.testing.assert_array_equal(read["params/3/kernel"], variables.params["3"]["kernel"])
    np.testing.assert_array_equal(read["state/1/var"], variables.state["1"]["var"])


def test_pytorch_reads_and_writes_the_same_numbers(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    params = variables_of(network()).params
    params["0"]["bias"] = params["0"]["bias"].astype(jnp.bfloat16)
    jdl.save_weights(tmp_path / "w.safetensors", params)
    read = load_file(tmp_path / "w.safetensors")
    assert read["0/bias"].dtype == torch.bfloat16
    np.testing.assert_array_equal(read["0/bias"].float().numpy(), params["0"]["bias"].astype(jnp.float32))
    np.testing.assert_array_equal(read["0/kernel"].numpy(), params["0"]["kernel"])
    save_file(read, tmp_path / "torch.safetensors")
    assert_same(jdl.load_weights(tmp_path / "torch.safetensors", params), params)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 3)])
def test_every_dtype_and_shape_comes_back(tmp_path, dtype: str, shape: tuple[int, ...]):
    tree = {"a": jnp.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape), dtype)}
    jdl.save_weights(tmp_path / "w.safetensors", tree)
    assert_same(jdl.load_weights(tmp_path / "w.safetensors", tree), tree)


def test_the_order_of_axes_in_memory_does_not_matter(tmp_path):
    tree = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.arange(8, dtype=np.int64)[::2]}
    jdl.save_weights(tmp_path / "w.safetensors", tree)
    assert_same(jdl.load_weights(tmp_path / "w.safetensors", tree), tree)


def test_a_failed_save_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    jdl.save_weights(path, {"a": jnp.ones(3)})
    before = path.read_bytes()

    def fail(arrays, beside):
        beside.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        jdl.save_weights(path, {"a": jnp.zeros(3)})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": {"key": jax.random.key(0)}}, r"a/key is a PRNG key, .*key_data"),
        ({"a": np.ones(2, np.complex128)}, r"a got complex128\[2\], which safetensors cannot hold"),
        ({"a": [1.0]}, r"a/0 got 1.0, wanted an array"),
        ({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, r"two leaves have the path 'a/b'"),
    ],
)
def test_what_cannot_be_saved_is_refused(tmp_path, tree, message: str):
    with pytest.raises(jdl.InputError, match=message):
        jdl.save_weights(tmp_path / "w.safetensors", tree)
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(jdl.InputError, match=r"suffix '.npz', wanted .safetensors"):
        jdl.save_weights(tmp_path / "w.npz", {"a": jnp.ones(1)})


def test_every_difference_is_named_at_once(tmp_path):
    saved = {"a": jnp.ones((2, 3)), "b": jnp.ones(3), "c": jnp.ones(3), "same": jnp.ones(1)}
    like = {"a": jnp.ones((2, 4)), "b": jnp.ones(3, jnp.bfloat16), "d": jnp.ones(3), "same": jnp.ones(1)}
    jdl.save_weights(tmp_path / "w.safetensors", saved)
    with pytest.raises(jdl.InputError) as caught:
        jdl.load_weights(tmp_path / "w.safetensors", like)
    assert str(caught.value).splitlines()[1:] == [
        "  a: float32[2, 3] in the file, float32[2, 4] in the model",
        "  b: float32[3] in the file, bfloat16[3] in the model",
        "  d: float32[3] in the model, missing in the file",
        "  c: float32[3] in the file, not in the model",
    ]


@pytest.mark.parametrize(
    ("saved", "like", "fix"),
    [
        ({"k": jnp.ones(3)}, {"k": jnp.ones(3, jnp.bfloat16)}, "cast like to the dtypes of the file"),
        ({"k": jnp.ones(3)}, {"k": jnp.ones(4)}, "other sizes"),
        ({"0": {"k": jnp.ones(3)}}, {"params": {"0": {"k": jnp.ones(3)}}}, r"\{'\*\*': 'params/\*\*'\}"),
        ({"model": {"k": jnp.ones(3)}}, {"k": jnp.ones(3)}, r"\{'model/\*\*': '\*\*'\}"),
        ({"a": jnp.ones(3), "b": jnp.ones(3)}, {"a": jnp.ones(3)}, "strict=False loads what fits"),
    ],
)
def test_the_likely_fix_is_named(tmp_path, saved, like, fix: str):
    jdl.save_weights(tmp_path / "w.safetensors", saved)
    with pytest.raises(jdl.InputError, match=fix):
        jdl.load_weights(tmp_path / "w.safetensors", like)


def test_a_part_is_loaded_and_the_rest_listed(tmp_path):
    saved = {"body": jnp.arange(3.0), "head": jnp.ones((3, 10)), "old": jnp.ones(1), "cast": jnp.ones(2)}
    like = {"body": jnp.zeros(3), "head": jnp.zeros((3, 5)), "new": jnp.full(2, 7.0), "cast": jnp.zeros(2, jnp.float16)}
    jdl.save_weights(tmp_path / "w.safetensors", saved)
    with pytest.warns(jdl.WeightsWarning) as caught:
        loaded = jdl.load_weights(tmp_path / "w.safetensors", like, strict=False)
    assert_same(loaded, like | {"body": saved["body"]})
    assert "loaded 1 of 4" in str(caught[0].message) and caught[0].filename == __file__
    assert [line.split(":")[0].strip() for line in str(caught[0].message).splitlines()[1:]] == [
        "cast", "head", "new", "old"
    ]  # fmt: skip


def test_a_partial_load_that_loads_all_is_silent_and_one_that_loads_nothing_an_error(tmp_path):
    jdl.save_weights(tmp_path / "w.safetensors", {"a": jnp.ones(3)})
    assert_same(jdl.load_weights(tmp_path / "w.safetensors", {"a": jnp.zeros(3)}, strict=False), {"a": jnp.ones(3)})
    with pytest.raises(jdl.InputError, match="none fits"):
        jdl.load_weights(tmp_path / "w.safetensors", {"b": jnp.zeros(3)}, strict=False)


def test_a_partial_load_needs_values_for_the_rest(tmp_path):
    jdl.save_weights(tmp_path / "w.safetensors", {"a": jnp.ones(3)})
    like = {"a": jnp.zeros(3), "b": jax.ShapeDtypeStruct((2,), jnp.float32)}
    with pytest.warns(jdl.WeightsWarning), pytest.raises(jdl.InputError, match=r"b is not in the file .* not shapes"):
        jdl.load_weights(tmp_path / "w.safetensors", like, strict=False)


@pytest.mark.parametrize(
    ("rules", "names"),  # of a/weight, a/b/weight and encoder.0.weight
    [
        ({"**/weight": "**/kernel"}, {"a/kernel", "a/b/kernel", "encoder.0.weight"}),
        ({"*/weight": "*/kernel"}, {"a/kernel", "a/b/weight", "encoder.0.weight"}),
        ({"a/**": "body/**"}, {"body/weight", "body/b/weight", "encoder.0.weight"}),
        ({"encoder.*.weight": "encoder/*/kernel"}, {"a/weight", "a/b/weight", "encoder/0/kernel"}),
        ({"a/b/*": "x/*", "a/**": "y/**"}, {"y/weight", "x/weight", "encoder.0.weight"}),
        ({"*/*/weight": "*_*"}, {"a/weight", "a_b", "encoder.0.weight"}),
        ({"**": "params/**"}, {"params/a/weight", "params/a/b/weight", "params/encoder.0.weight"}),
        ({"a/**/weight": "a/**/w"}, {"a/w", "a/b/w", "encoder.0.weight"}),
        ({"**/b/**": "c/**"}, {"a/weight", "c/a", "encoder.0.weight"}),
        ({"a/**": "**"}, {"weight", "b/weight", "encoder.0.weight"}),
    ],
)
def test_names_are_mapped_by_patterns(tmp_path, rules: dict[str, str], names: set[str]):
    arrays = {name: np.full(1, value, np.float32) for value, name in enumerate(["a/weight", "a/b/weight"])}
    safetensors.numpy.save_file(arrays | {"encoder.0.weight": np.full(1, 2, np.float32)}, tmp_path / "w.safetensors")
    like = {name: jax.ShapeDtypeStruct((1,), jnp.float32) for name in names}
    loaded = jdl.load_weights(tmp_path / "w.safetensors", like, rename=rules)
    assert sorted(float(value[0]) for value in loaded.values()) == [0, 1, 2]


def test_a_renamed_array_keeps_its_values(tmp_path):
    safetensors.numpy.save_file({"x/1/w": np.ones(2), "x/0/w": np.zeros(2)}, tmp_path / "w.safetensors")
    like = {"body": {"0": {"w": np.empty(2)}, "1": {"w": np.empty(2)}}}
    loaded = jdl.load_weights(tmp_path / "w.safetensors", like, rename={"x/*/w": "body/*/w"})
    assert_same(loaded, {"body": {"0": {"w": np.zeros(2)}, "1": {"w": np.ones(2)}}})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"c/**": "d/**"}, r"'c/\*\*', which matches no name in the file: a, b"),
        ({"*": "c"}, r"gives both 'a' and 'b' the name 'c'"),
        ({"a": "*/a"}, r"more '\*' on the right"),
        ({"*": "**"}, r"more '\*\*' on the right"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(tmp_path, rules: dict[str, str], message: str):
    jdl.save_weights(tmp_path / "w.safetensors", {"a": jnp.ones(1), "b": jnp.ones(1)})
    with pytest.raises(jdl.InputError, match=message):
        jdl.load_weights(tmp_path / "w.safetensors", {"a": jnp.ones(1)}, rename=rules)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "w.safetensors"
    like = {"a": jnp.ones(100)}
    with pytest.raises(jdl.InputError, match="there is no file"):
        jdl.load_weights(path, like)
    jdl.save_weights(path, like)
    whole = path.read_bytes()
    for content in (b"", b"PK\x03\x04 not one of ours", whole[:-1], whole[:40], whole[:8], whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(jdl.InputError, match="not a safetensors file, or is cut off"):
            jdl.load_weights(path, like)
