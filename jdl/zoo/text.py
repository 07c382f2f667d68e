"""The network that reads a sentence, and what it can make of a sequence."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jdl import check, nn
from jdl.nn import functional as F
from jdl.nn.net import Net
from jdl.nn.streaming import streams
from jdl.zoo.sequences import check_recurrent

Array = jax.Array
Summary = Callable[[Array, Array | None], Array]


def mean_over_time(y: Array, lengths: Array | None = None) -> Array:
    """The mean of each unit over the real steps: ``y [B, T, H]`` and ``lengths [B]``, by default T, to ``[B, H]``.

    Raises InputError for ``y`` of another shape, and for lengths outside of 1 to T, which under jit give NaN.
    """
    return _over_time(jnp.mean, y, lengths)


def max_over_time(y: Array, lengths: Array | None = None) -> Array:
    """The largest value of each unit over the real steps, ``[B, H]``; arguments and errors as of `mean_over_time`.

    Each unit looks for a sign of its own, wherever it stands (Collobert et al. 2011).
    """
    return _over_time(functools.partial(jnp.max, initial=-jnp.inf), y, lengths)


def both_ends(y: Array, lengths: Array | None = None) -> Array:
    """What `nn.Bidirectional` knows at the end: its first half at the last step, its second half at the first step.

    ``y [B, T, 2H]`` and ``lengths [B]`` to ``[B, 2H]``. At the last step the second half has read a single word.
    Raises as `mean_over_time`, and where the two halves are not of one width.
    """
    _check_steps(y)
    if y.shape[-1] % 2:
        fix = "take an nn.Bidirectional of two cells of one width"
        raise check.InputError(f"input got {check.describe(y)}, wanted [B, T, 2H], two halves of one width; {fix}")
    ahead, behind = jnp.split(y, 2, axis=-1)
    return jnp.concatenate([nn.last_step(ahead, lengths), behind[:, 0]], axis=-1)


def _over_time(reduce: Callable[..., Array], y: Array, lengths: Array | None) -> Array:
    _check_steps(y)
    if lengths is None:
        return reduce(y, 1)
    F.check_lengths(lengths, y)
    summary = reduce(y, 1, where=F.real_steps(lengths, y.shape[1])[..., None])
    return F.nan_unless_possible(summary, lengths, y.shape[1])


def _check_steps(y: Array) -> None:
    check.floating(y)
    check.rank(y, 3, "[B, T, H], the steps of a recurrent layer")


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
    Raises InputError for ids of another rank or dtype, for lengths outside of 1 to T, and in ``nn.with_carry`` for a
    summary but ``nn.last_step``, which alone needs none of the steps before.
    """

    vocabulary_size: int
    features: int
    _: dataclasses.KW_ONLY
    recurrent: nn.Layer = nn.Recurrent(nn.LSTMCell(128))
    summary: Summary = nn.last_step
    head: nn.Layer = nn.Dense(1)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_recurrent(self)

    def forward(self, net: Net, tokens: Array, lengths: Array | None = None) -> Array:
        check.rank(tokens, 2, "[B, T], the ids of one sentence a row", "tokens", "one sentence is tokens[None]")
        drop = net.child("drop", nn.Dropout(self.dropout))
        words = drop(net.child("embedding", nn.Embedding(self.vocabulary_size, self.features))(tokens))
        steps = net.recurrent(words) if lengths is None else net.recurrent(words, lengths=lengths)
        if streams(net) and self.summary is not nn.last_step:
            raise check.InputError(
                f"summary got {nn.Function(self.summary)}, which would be of the steps of one call alone; stream with "
                "nn.last_step, or give all of a sentence at once"
            )
        return net.head(drop(self.summary(steps, lengths)))
