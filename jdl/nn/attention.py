"""The layer in which every place of a sequence looks at others."""

from __future__ import annotations

import dataclasses

import jax

from jdl import check
from jdl.nn import functional as F
from jdl.nn import init, inputs
from jdl.nn.core import Layer
from jdl.nn.dense import Dense
from jdl.nn.net import Net


class Attention(Layer):
    """Multi-head attention of ``x [B, T, D]`` to itself, or to a ``context [B, S, C]``; ``[B, T, D]``.

    Called as ``attention(x)`` or ``attention(x, context)``, with ``mask`` (true where a query may look, ``[T, S]``,
    ``[B, T, S]`` or ``[B, H, T, S]``) and ``lengths [B]``, the real steps of what is looked at, as in
    `functional.attention`. ``causal`` hides what comes later. Each head is D / heads wide.

    Parameters: ``queries``, ``keys``, ``values`` and ``outputs``, each a ``kernel [·, D]`` and a ``bias [D]`` (absent
    with ``bias=False``); heads lie one after another in D (Vaswani et al. 2017, arXiv:1706.03762; PyTorch's
    ``MultiheadAttention``). Raises InputError for inputs of another rank, heads that do not divide D, and what
    `functional.attention` refuses.
    """

    heads: int
    _: dataclasses.KW_ONLY
    causal: bool = False
    bias: bool = True
    kernel_init: init.Initializer = init.glorot_uniform()

    def __post_init__(self) -> None:
        inputs.counts(self, "heads")

    def forward(
        self,
        net: Net,
        x: jax.Array,
        context: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        _check_sequence(x, "[B, T, D]", "input")
        width = x.shape[-1]
        if width % self.heads:
            raise check.InputError(
                f"input got {check.describe(x)}, wanted a last axis that {self.heads} heads divide; change either"
            )
        source = x if context is None else context
        _check_sequence(source, "[B, S, C]", "context")
        check.same_batch(x, source, ("input", "context"))

        dense = Dense(width, bias=self.bias, kernel_init=self.kernel_init)
        queries, keys, values = (
            net.child(name, dense)(y).reshape(*y.shape[:2], self.heads, width // self.heads)
            for name, y in (("queries", x), ("keys", source), ("values", source))
        )
        y = F.attention(queries, keys, values, mask=mask, lengths=lengths, causal=self.causal)
        return net.child("outputs", dense)(y.reshape(x.shape))


def _check_sequence(x: jax.Array, layout: str, name: str) -> None:
    fix = "a sequence without a batch is x[None]" if getattr(x, "ndim", 0) == 2 else "flatten space: x.reshape(B, T, D)"
    check.rank(x, 3, layout, name, fix)
    check.floating(x, name)
