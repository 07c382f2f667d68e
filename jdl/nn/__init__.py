"""Layers, and the plain functions of arrays that they call (:mod:`jdl.nn.functional`)."""

from jdl.nn import functional, init
from jdl.nn.attention import Attention
from jdl.nn.containers import Chain, Ensemble, Parallel, Remat, Repeat, Residual
from jdl.nn.conv import Conv, ConvTranspose
from jdl.nn.core import Layer
from jdl.nn.dense import Dense
from jdl.nn.dropout import Dropout
from jdl.nn.embedding import Embedding
from jdl.nn.functional import (
    elu,
    geglu,
    gelu,
    gelu_tanh,
    glu,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    last_step,
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
from jdl.nn.net import Net
from jdl.nn.norm import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from jdl.nn.parts import part
from jdl.nn.perceptron import Neuron, Perceptron
from jdl.nn.pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from jdl.nn.precision import Precision
from jdl.nn.probing import Seen, probe, zero_shifts
from jdl.nn.radial import RadialBasis, with_centres
from jdl.nn.recurrent import (
    Bidirectional,
    BidirectionalCarry,
    Cell,
    GRUCell,
    LSTMCell,
    Recurrent,
    RNNCell,
    StackedRecurrent,
)
from jdl.nn.settings import Function, Param, Variables
from jdl.nn.shape import Flatten, Reshape, Resize, Upsample
from jdl.nn.spec import Row, Spec
from jdl.nn.streaming import with_carry

__all__ = [
    "Attention",
    "AveragePool",
    "BatchNorm",
    "Bidirectional",
    "BidirectionalCarry",
    "Cell",
    "Chain",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Dropout",
    "Embedding",
    "Ensemble",
    "Flatten",
    "Function",
    "GRUCell",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNorm",
    "InstanceNorm",
    "LSTMCell",
    "Layer",
    "LayerNorm",
    "MaxPool",
    "Net",
    "Neuron",
    "Parallel",
    "Param",
    "Perceptron",
    "Precision",
    "RMSNorm",
    "RNNCell",
    "RadialBasis",
    "Recurrent",
    "Remat",
    "Repeat",
    "Reshape",
    "Residual",
    "Resize",
    "Row",
    "Seen",
    "Spec",
    "StackedRecurrent",
    "Upsample",
    "Variables",
    "elu",
    "functional",
    "geglu",
    "gelu",
    "gelu_tanh",
    "glu",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "init",
    "last_step",
    "leaky_relu",
    "linear",
    "log_softmax",
    "mish",
    "part",
    "probe",
    "reglu",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "step",
    "swiglu",
    "tanh",
    "with_carry",
    "with_centres",
    "zero_shifts",
]

_ELSEWHERE = {
    "Linear": "Dense",
    "Sequential": "Chain",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softmax": "softmax",
    "Conv1d": "Conv",
    "Conv2d": "Conv",
    "Conv2D": "Conv",
    "Conv3d": "Conv",
    "MaxPool2d": "MaxPool",
    "MaxPooling2D": "MaxPool",
    "AvgPool2d": "AveragePool",
    "BatchNorm1d": "BatchNorm",
    "BatchNorm2d": "BatchNorm",
    "BatchNormalization": "BatchNorm",
    "LayerNormalization": "LayerNorm",
    "Module": "Layer",
    "MultiheadAttention": "Attention",
    "MultiHeadAttention": "Attention",
}


def __getattr__(name: str) -> object:
    """What other libraries call by another name is an error that says ours."""
    hint = f"; jdl calls it nn.{_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
    raise AttributeError(f"module 'jdl.nn' has no attribute {name!r}{hint}")
