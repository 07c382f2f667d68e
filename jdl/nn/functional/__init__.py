"""Tensor maths as plain functions over arrays: what layers call, and what anybody can call without them.

Batches lead and channels come last. Each function computes in the dtype of its floating input, to which parameters are
cast; softmax and the statistics of norms are taken in float32 at least. Input that cannot be used is an InputError
raised while tracing.
"""

from jdl.nn.functional.activation import (
    elu,
    geglu,
    gelu,
    gelu_tanh,
    glu,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    leaky_relu,
    linear,
    log_softmax,
    mish,
    reglu,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    step,
    swiglu,
    tanh,
)
from jdl.nn.functional.activation_table import ACTIVATIONS, Activation
from jdl.nn.functional.attention import attention, attention_weights
from jdl.nn.functional.conv import conv, conv_transpose
from jdl.nn.functional.dense import dense
from jdl.nn.functional.dropout import dropout
from jdl.nn.functional.embedding import embedding
from jdl.nn.functional.norm import (
    batch_norm,
    batch_norm_in_training,
    batch_statistics,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)
from jdl.nn.functional.pool import average_pool, global_average_pool, global_max_pool, max_pool
from jdl.nn.functional.radial import kmeans, neighbour_widths, radial_basis, squared_distances
from jdl.nn.functional.recurrence import (
    check_lengths,
    gru_step,
    last_step,
    lstm_step,
    nan_unless_possible,
    over_time,
    real_steps,
    rnn_step,
    without_padding,
)
from jdl.nn.functional.resize import resize, upsample

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "attention",
    "attention_weights",
    "average_pool",
    "batch_norm",
    "batch_norm_in_training",
    "batch_statistics",
    "check_lengths",
    "conv",
    "conv_transpose",
    "dense",
    "dropout",
    "elu",
    "embedding",
    "geglu",
    "gelu",
    "gelu_tanh",
    "global_average_pool",
    "global_max_pool",
    "glu",
    "group_norm",
    "gru_step",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "instance_norm",
    "kmeans",
    "last_step",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "lstm_step",
    "max_pool",
    "mish",
    "nan_unless_possible",
    "neighbour_widths",
    "over_time",
    "radial_basis",
    "real_steps",
    "reglu",
    "relu",
    "resize",
    "rms_norm",
    "rnn_step",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "squared_distances",
    "step",
    "swiglu",
    "tanh",
    "upsample",
    "without_padding",
]
