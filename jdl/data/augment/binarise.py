"""The augmentation that draws binary images from grey ones."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jdl import check
from jdl.check import InputError
from jdl.data.augment.base import Array, Augmentation, Batch, entry, example_keys, uniform


@dataclasses.dataclass(frozen=True)
class Binarise(Augmentation):
    """Each value of ``inputs [B, …]``, a probability, becomes 1 with that probability and else 0, anew in every step.

    Of grey images in 0 to 1 it makes the binary ones that a Bernoulli likelihood is about (Salakhutdinov & Murray
    2008). Where they are the targets too, as of an autoencoder, let the objective read them: ``targets="inputs"``.
    Floating dtypes.
    """

    def __call__(self, key: Array, batch: Batch) -> Batch:
        inputs = entry(batch, "inputs", "Binarise")
        check.array(inputs, "inputs")
        if not jnp.issubdtype(inputs.dtype, jnp.floating):
            fix = "probabilities from 0 to 1: pixels / 255"
            raise InputError(f"inputs got {check.describe(inputs)}, wanted a floating dtype; {fix}", "Binarise")

        def one(key: Array, x: Array) -> Array:
            return (uniform(key, x.shape) < x.astype(jnp.float32)).astype(x.dtype)

        return batch | {"inputs": jax.vmap(one)(example_keys(key, len(inputs)), jnp.asarray(inputs))}
