"""Layers, and the plain functions of arrays that they call (:mod:`jdl.nn.functional`)."""

from jdl.nn import functional, init
from jdl.nn.containers import Chain, Ensemble, Parallel, Remat, Repeat, Residual
from jdl.nn.core import Layer
from jdl.nn.net import Net
from jdl.nn.settings import Function, Param, Variables
from jdl.nn.spec import Row, Spec

__all__ = [
    "Chain",
    "Ensemble",
    "Function",
    "Layer",
    "Net",
    "Parallel",
    "Param",
    "Remat",
    "Repeat",
    "Residual",
    "Row",
    "Spec",
    "Variables",
    "functional",
    "init",
]
