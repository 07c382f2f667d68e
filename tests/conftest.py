"""How the tests run JAX, and every other setting that must stand before the first import."""

from __future__ import annotations

import os

# Reference values are those of CPU arithmetic. To try another platform: JAX_PLATFORMS=cuda pytest
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # tests write nothing into the user's cache

import hypothesis
import jax

jax.config.update("jax_num_cpu_devices", 2)  # so that what is sharded over devices has two to run on
jax.config.update("jax_numpy_dtype_promotion", "strict")

# The same examples in every run; no deadline, as the first example of a test pays for the compilation.
hypothesis.settings.register_profile("jdl", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("jdl")
