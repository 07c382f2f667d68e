"""The network that reads a sentence, and what it can make of a sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jdl import check, nn
from jdl.nn.net import Net

Array = jax.Array
Summary = Callable[[Array, Array | None], Array]


def mean_over_time(y: Array, lengths: Array | None = None) -> Array:
    """The mean of each unit over the real steps: ``y [B, T, H]`` and ``lengths [B]``, by default T, to ``[B, H]``."""
    return jnp.mean(y, 1, where=_real(y, lengths))


def max_over_time(y: Array, lengths: Array | None = None) -> Array:
    """The largest value of each unit over the real steps, ``[B, H]``; arguments as of `mean_over_time`.

    Each unit looks for a sign of its own, wherever it stands (Collobert et al. 2011).
    """
    return jnp.max(y, 1, where=_real(y, lengths), initial=-jnp.inf)


def both_ends(y: Array, lengths: Array | None = None) -> Array:
    """What `nn.Bidirectional` knows at the end: its first half at the last step, its second half at the first step.

    ``y [B, T, 2H]`` and ``lengths [B]`` to ``[B, 2H]``. At the last step the second half has read a single word.
    """
    ahead, behind = jnp.split(y, 2, axis=-1)
    return jnp.concatenate([nn.last_step(ahead, lengths), behind[:, 0]], axis=-1)


def _real(y: Array, lengths: Array | None) -> Array | None:
    if lengths is None:
        return None
    return (jnp.arange(y.shape[1]) < lengths[:, None])[..., None]


class TextNet(nn.Layer):
    """Reads a sentence word by word and classifies it: ids of words ``[B, T]`` to a logit ``[B, 1]``.

    An embedding of ``features`` numbers a word, a ``recurrent`` layer, a ``summary`` of its steps, and a ``head``; in
    training, ``dropout`` of that rate on the words' vectors and on the summary. As it stands it is the LSTM of 128
    units whose last step decides, in the way of Sutskever et al. 2014. Its sisters:

    ```python
    TextNet(10_000, 100, recurrent=nn.Recurrent(nn.GRUCell(128)))
    TextNet(10_000, 100, recurrent=nn.Bidirectional(nn.LSTMCell(64)), summary=both_ends)
    TextNet(10_000, 100, recurrent=nn.Bidirectional(nn.GRUCell(64)), summary=max_over_time)
    ```

    Give it ``lengths [B]`` wherever sentences are padded. Without them the last step is the last of T, which for all
    but the longest sentences is padding, and the network has to carry what it read through all of it.

    Parameters, for V words of E features: V E + 4 · 128 (E + 128 + 1) + 129; 10,000 words of 100 have 1,117,377.
    Raises InputError for ids of another rank or dtype, and for lengths outside of 1 to T.
    """

    vocabulary_size: int
    features: int
    _: dataclasses.KW_ONLY
    recurrent: nn.Layer = nn.Recurrent(nn.LSTMCell(128))
    summary: Summary = nn.last_step
    head: nn.Layer = nn.Dense(1)
    dropout: float = 0.0

    def forward(self, net: Net, tokens: Array, lengths: Array | None = None) -> Array:
        check.rank(tokens, 2, "[B, T], the ids of one sentence a row", "tokens", "one sentence is tokens[None]")
        drop = net.child("drop", nn.Dropout(self.dropout))
        words = drop(net.child("embedding", nn.Embedding(self.vocabulary_size, self.features))(tokens))
        steps = net.recurrent(words, lengths)
        return net.head(drop(self.summary(steps, lengths)))
