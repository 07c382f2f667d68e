"""Forecasting several steps of a series at once from a window of its past."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdl import check, nn
from jdl.nn.inputs import counts
from jdl.nn.net import Net
from jdl.zoo.sequences import check_recurrent


class LinearForecaster(nn.Layer):
    """The linear map of a window ``[B, T, D]`` to the next ``horizon`` steps ``[B, horizon]``, with a bias.

    Hard to beat on many series (Zeng et al. 2022, arXiv:2205.13504). (T · D + 1) · horizon parameters: a window of 96
    steps of one series to the next 24 has 2,328. Least squares gives them without training, see
    ``experiments/forecast.py``.
    """

    horizon: int

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        _check_window(x)
        return net.child("map", nn.Dense(self.horizon))(net.child("flatten", nn.Flatten())(x))


class Forecaster(nn.Layer):
    """A linear forecast and a recurrent network's correction of it: ``[B, T, D]`` to ``[B, horizon]``.

    The ``recurrent`` layer reads the window step by step; what a dense layer makes of its last output is added to the
    ``linear`` forecast, by default a :class:`LinearForecaster`, all ``horizon`` steps at once. The correction begins
    near zero, so that training begins near the linear forecast. From 96 steps of one series to 24, with 32 units: 6,416
    parameters of a GRU, 7,472 of an LSTM, 4,208 of the plain cell.

    It may read several steps as one, which is faster and often better (Lin et al. 2023, SegRNN, arXiv:2308.11200):
    ``nn.Chain(nn.Reshape((4, -1)), nn.Recurrent(nn.GRUCell(32)))`` goes over 96 hours day by day.
    """

    horizon: int
    recurrent: nn.Layer = nn.Recurrent(nn.GRUCell(32))
    linear: nn.Layer | None = None

    def __post_init__(self) -> None:
        check_recurrent(self)

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        linear = net.child("linear", self.linear or LinearForecaster(self.horizon))(x)
        last = nn.last_step(net.recurrent(x))
        correction = nn.Dense(self.horizon, kernel_init=nn.init.normal(0.01))
        return linear + net.child("correction", correction)(last)


class FromLastValue(nn.Layer):
    """A ``forecaster`` that works in differences from the last value: ``[B, T, D]`` to ``[B, horizon]``.

    The last value of column ``target``, the one that is forecast, is taken from that column of the window and added to
    what comes out. Then a level that training never saw changes nothing; as in NLinear (Zeng et al. 2022,
    arXiv:2205.13504). Wrong for series that return to a mean, such as the returns of a share.
    """

    forecaster: nn.Layer
    target: int = 0

    def __post_init__(self) -> None:
        counts(self, "target", minimum=0)

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        _check_window(x)
        if self.target >= x.shape[-1]:
            got = f"target {self.target} and {check.describe(x)}"
            raise check.InputError(f"got {got}, wanted the number of one of its {x.shape[-1]} columns, from 0")
        last = x[:, -1:, self.target]
        is_target = jnp.arange(x.shape[-1]) == self.target
        return net.forecaster(x - jnp.where(is_target, last[..., None], 0)) + last


def _check_window(x: jax.Array) -> None:
    check.floating(x)
    check.rank(x, 3, "[B, T, D], windows of a series", fix="one number a step is x[..., None]" if x.ndim == 2 else "")
