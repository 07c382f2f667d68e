"""Models whose graphs are drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jdl import nn


def like(*shape: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


class TwoInputs(nn.Layer):
    """The handout's z = x1·w1 + x2·w2 + b, a = sigmoid(z)."""

    def params(self, x1, x2):
        return {name: nn.Param((), nn.init.zeros()) for name in ("w1", "w2", "b")}

    def forward(self, net, x1, x2):
        return nn.sigmoid(x1 * net.w1 + x2 * net.w2 + net.b)


class Shared(nn.Layer):
    """One layer twice, and a table that both embeds and scores."""

    def forward(self, net, x):
        embed, hidden = net.child("embed", nn.Embedding(20, 16)), net.child("hidden", nn.Dense(16))
        return hidden(hidden(embed(x))) @ embed.table.T


class Block(nn.Layer):
    """A Transformer block's shape, with single-head attention of its own."""

    rate: float = 0.1

    def forward(self, net, x):
        width, drop = x.shape[-1], net.child("drop", nn.Dropout(self.rate))
        h = net.child("norm_1", nn.LayerNorm())(x)
        q, k, v = (net.child(name, nn.Dense(width))(h) for name in ("query", "key_", "value"))
        weights = nn.softmax(jnp.einsum("btd,bsd->bts", q, k) / width**0.5)
        x = x + drop(net.child("out", nn.Dense(width))(weights @ v))
        mlp = net.child("mlp", nn.Chain(nn.Dense(4 * width), nn.gelu, nn.Dense(width)))
        return x + drop(mlp(net.child("norm_2", nn.LayerNorm())(x)))


class Tangle(nn.Layer):
    """Sums at random of what came before, some of them in layers."""

    seed: int

    def forward(self, net, x):
        rng = np.random.default_rng(self.seed)
        values = [x, jnp.tanh(x)]
        for step in range(25):
            a, b = (values[max(0, len(values) - 1 - int(back))] for back in rng.integers(0, 9, 2))
            if rng.random() < 0.4:
                a = net.child(f"layer_{step}", nn.Residual(nn.Dense(3)) if rng.random() < 0.5 else nn.relu)(a)
            values.append(a * b if rng.random() < 0.5 else a - b)
        return sum(values[-4:], start=values[0])


class Branching(nn.Layer):
    """A conditional, a loop and a scan."""

    def forward(self, net, x):
        big, small = net.child("big", nn.Dense(3)), net.child("small", nn.tanh)
        x = jax.lax.cond(x[0, 0] > 0, big, small, x)
        x = jax.lax.while_loop(lambda x: x.sum() < 10, lambda x: 2 * x, x)
        return jax.lax.fori_loop(0, 3, lambda i, x: net.child("step", nn.Dense(3))(x) + 1, x)


class Doubled(nn.Layer):
    """Two equal operations in a row, beside a layer."""

    def forward(self, net, x):
        y = net.child("before", nn.tanh)(x)
        return y * x * y


MLP = nn.Chain(nn.Flatten(), nn.Dense(12), nn.relu, nn.Dropout(0.5), nn.Dense(10))
CNN = nn.Chain(
    nn.Conv(8, 3),
    nn.BatchNorm(),
    nn.relu,
    nn.Residual(nn.Chain(nn.Conv(8, 3), nn.BatchNorm(), nn.relu, nn.Conv(8, 3))),
    nn.MaxPool(2),
    nn.Flatten(),
    nn.Dense(10),
)
IMAGES, ROWS = like(2, 8, 8, 1), like(4, 3)
MODELS = {
    "neuron": (TwoInputs(), (like(4), like(4))),
    "one layer": (nn.Dense(5), (ROWS,)),
    "mlp": (MLP, (IMAGES,)),
    "cnn": (CNN, (IMAGES,)),
    "shared": (Shared(), (like(2, 5, dtype=jnp.int32),)),
    "block": (Block(), (like(2, 5, 8),)),
    "repeated": (nn.Repeat(Block(), 12), (like(2, 5, 8),)),
    "ensemble": (nn.Ensemble(nn.Remat(nn.Chain(nn.Dense(4), jnp.tanh)), 3), (ROWS,)),
    "parallel": (
        nn.Chain(nn.Parallel(nn.Dense(4), nn.tanh, skip=nn.linear), lambda a, b, c: (a.sum(), b + c)),
        (ROWS,),
    ),
    "branching": (Branching(), (ROWS,)),
    **{f"tangle {seed}": (Tangle(seed), (ROWS,)) for seed in range(4)},
}
CASES = [(name, detail, train) for name in MODELS for detail in ("layers", "operations") for train in (False, True)]
