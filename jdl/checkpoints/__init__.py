"""Checkpoints on disk: written in the background, whole or not there, and checked to the byte before they are read.

A checkpoint is a folder ``step_00000120``: ``arrays`` (written by orbax, by path), ``extra.json``, ``manifest.json``
(versions, metrics, every array's shape and dtype, every file's size and SHA-256) and ``manifest.sha256``.
"""

from jdl.checkpoints.settings import Checkpoints
from jdl.checkpoints.store import CheckpointWarning, Saved, Store

__all__ = ["CheckpointWarning", "Checkpoints", "Saved", "Store"]
