"""The smallest layers that hold parameters, keep state, draw keys or take options."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn
from jdl.check import InputError
from jdl.nn.core import Layer

KEY = jax.random.key(0)


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(dtype))


class Linear(nn.Layer):
    """``x @ kernel + bias``."""

    features: int
    bias: bool = True

    def params(self, x):
        spec = {"kernel": nn.Param((x.shape[-1], self.features), nn.init.he_normal())}
        return spec | ({"bias": nn.Param((self.features,), nn.init.normal(1.0))} if self.bias else {})

    def forward(self, net, x):
        y = x @ net.kernel
        return y + net.bias if self.bias else y


class Noise(nn.Layer):
    """Draws a key while training."""

    def forward(self, net, x):
        return x + jax.random.normal(net.key(), x.shape, x.dtype) if net.train else x


class Mean(nn.Layer):
    """Subtracts a running mean, which training moves halfway to the mean of the batch."""

    def state(self, x):
        return {"mean": nn.Param((x.shape[-1],), nn.init.zeros())}

    def forward(self, net, x):
        if net.train:
            net.update(mean=0.5 * (net.mean + x.reshape(-1, x.shape[-1]).mean(0)))
        return x - net.mean


class Masked(nn.Layer):
    """A linear map whose output is times ``mask`` and ``scale``, keyword options."""

    def params(self, x):
        return {"kernel": nn.Param((x.shape[-1], x.shape[-1]), nn.init.he_normal())}

    def forward(self, net, x, mask=None, scale=1.0):
        y = scale * jnp.tanh(x @ net.kernel)
        return y if mask is None else y * mask[:, None]


class Inside(nn.Layer):
    """Calls a sub-layer under a jax transform: ``transform(function, x)``."""

    inner: Any
    transform: Callable[..., Any]

    def forward(self, net, x):
        return self.transform(net.inner, x)


class OneStep(nn.Layer):
    """The output of a cell's first step."""

    cell: Any

    def forward(self, net, x):
        return net.cell(self.cell.initial_carry(x), x)[1]


def apply_jitted(model: Layer, variables: nn.Variables, *inputs: Any, train: bool = False, **options: Any) -> Any:
    """``apply`` as one program."""
    return _apply(model, *variables, *inputs, train=train, **options)


_apply = jax.jit(Layer.apply, static_argnums=0, static_argnames="train")


@contextlib.contextmanager
def refused(*parts: str) -> Iterator[None]:
    """What is inside raises InputError, with all these parts in its message."""
    with pytest.raises(InputError) as error:
        yield
    for part in parts:
        assert part in str(error.value), f"{part!r} is not in {error.value}"


def assert_close(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    """max |a - b| ≤ tolerance · max |b|, leaf by leaf of trees of one structure."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert x.shape == y.shape, (jax.tree_util.keystr(path), x.shape, y.shape)
        worst = np.max(np.abs(x - y), initial=0.0)
        assert worst <= tolerance * max(np.max(np.abs(y), initial=0.0), 1e-30), (jax.tree_util.keystr(path), worst)


def assert_equal(a: Any, b: Any) -> None:
    """Bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path))


def shapes(tree: Any) -> Any:
    """Shape and dtype of every leaf."""
    return jax.tree.map(lambda leaf: (leaf.shape, jnp.dtype(leaf.dtype)), tree)
