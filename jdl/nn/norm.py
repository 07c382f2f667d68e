"""Layers that normalise. Statistics in float32 at least, biased variances, results in the dtype of the input."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax import lax

from jdl import check
from jdl.nn import functional as F
from jdl.nn import init, inputs
from jdl.nn.core import Layer
from jdl.nn.net import Net
from jdl.nn.settings import Param


class _Norm(Layer):
    """A norm declares ``scale [C]`` (one) and ``bias [C]`` (zero), each where its setting of that name is true."""

    _casts = True

    def params(self, x: jax.Array) -> dict[str, Param]:
        shape = (inputs.channels(x),)
        declared = {"scale": Param(shape, init.ones()), "bias": Param(shape, init.zeros())}
        return {name: param for name, param in declared.items() if getattr(self, name)}

    def _affine(self, net: Net) -> tuple[Any, Any]:
        """Scale and bias, None where there is none."""
        scale, bias = (getattr(net, name) if getattr(self, name) else None for name in ("scale", "bias"))
        return scale, bias


class BatchNorm(_Norm):
    """Zero mean and unit variance of every channel over the batch, in evaluation over all of training.

    ``x [..., C]``; parameters ``scale [C]`` and ``bias [C]``, state ``mean [C]`` and ``var [C]`` in float32
    (Ioffe & Szegedy, 2015). ``momentum`` is the share of the running value that a training step keeps (PyTorch's
    momentum is the share replaced). The variance is biased both for normalising and for running (PyTorch runs the
    unbiased one, n / (n - 1) times as large).

    Under shard_map, ``axis_name`` names the mesh axis (or axes) over which the batch is spread; under vmap too it
    joins the statistics. Raises InputError in training for a single value per channel, whose variance is nothing, and
    for a batch spread over devices that ``axis_name`` does not name.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    scale: bool = True
    bias: bool = True
    axis_name: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise check.InputError(f"BatchNorm.momentum got {self.momentum}, wanted 0 to 1, the share that is kept")

    def state(self, x: jax.Array) -> dict[str, Param]:
        shape = (inputs.channels(x),)
        return {"mean": Param(shape, init.zeros()), "var": Param(shape, init.ones())}

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        if not net.train:
            return F.batch_norm(x, net.mean, net.var, *self._affine(net), self.eps)
        collecting = net._collecting  # then no axis is bound, and a single example will do
        if not collecting:
            self._check_batch(x)
        axis_name = None if collecting else self.axis_name
        y, mean, var = F.batch_norm_in_training(x, *self._affine(net), self.eps, axis_name)
        net.update(mean=self._moved(net.mean, mean), var=self._moved(net.var, var))
        return y

    def _moved(self, running: jax.Array, batch: jax.Array) -> jax.Array:
        return self.momentum * running + (1 - self.momentum) * batch.astype(running.dtype)

    def _check_batch(self, x: jax.Array) -> None:
        axes = (self.axis_name,) if isinstance(self.axis_name, str) else self.axis_name or ()
        if spread := sorted(check.manual_axes(x) - set(axes)):
            names = spread[0] if len(spread) == 1 else tuple(spread)
            raise check.InputError(
                f"input got {check.describe(x)}, spread over the devices of {names!r}, and each would normalise with "
                f"statistics of its own; use axis_name={names!r}"
            )
        if math.prod(x.shape[:-1]) * math.prod(map(lax.axis_size, axes)) == 1:
            raise check.InputError(
                f"input got {check.describe(x)}, wanted more than one value per channel in training; "
                "use a larger batch, or a norm that needs none (LayerNorm, GroupNorm)"
            )


class LayerNorm(_Norm):
    """Zero mean and unit variance of every ``x [..., C]`` along its last axis (Ba et al., 2016)."""

    eps: float = 1e-5
    scale: bool = True
    bias: bool = True

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.layer_norm(x, *self._affine(net), self.eps)


class RMSNorm(_Norm):
    """Every ``x [..., C]`` over the root of its mean square along the last axis (Zhang & Sennrich, 2019)."""

    eps: float = 1e-5
    scale: bool = True
    bias = False

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.rms_norm(x, self._affine(net)[0], self.eps)


class GroupNorm(_Norm):
    """Zero mean and unit variance over space and a group of channels, for every example (Wu & He, 2018).

    ``x [B, *spatial, C]``. Raises InputError when ``groups`` does not divide C.
    """

    groups: int
    eps: float = 1e-5
    scale: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        inputs.counts(self, "groups")

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.group_norm(x, self.groups, *self._affine(net), self.eps)


class InstanceNorm(_Norm):
    """Zero mean and unit variance over space, for every example and channel (Ulyanov et al., 2016).

    ``x [B, *spatial, C]``. Raises InputError where space is a single cell.
    """

    eps: float = 1e-5
    scale: bool = True
    bias: bool = True

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.instance_norm(x, *self._affine(net), self.eps)
