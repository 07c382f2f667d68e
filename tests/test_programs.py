"""Every compilation is counted, timed and explained."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from jdl.programs import Compilations, Program, cached_program

ROOT = Path(__file__).parents[1]
X = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
DATA = (X, np.arange(24) % 3)
HELD_OUT = (X + 0.1, np.arange(24) % 3)


def double(x):
    return 2 * x


def fit(model, **options):
    return jdl.fit(model, jdl.losses.cross_entropy, OPTIMIZER, DATA, epochs=1, batch_size=8, **options)


OPTIMIZER = optax.sgd(0.1)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (jnp.zeros(3), jnp.zeros(4), r"0: float32\[3\] became float32\[4\]"),
        (jnp.zeros(3), jnp.zeros(3, jnp.int32), r"0: float32\[3\] became int32\[3\]"),
        ({"a": jnp.zeros(3)}, {"b": jnp.zeros(3)}, r"0/a: float32\[3\] became absent; 0/b: absent became float32\[3\]"),
        (jnp.zeros(()), 1.0, r"0: float32\[\] became float32\[\] \(weak type\)|0: .* became 1.0"),
    ],
    ids=["shape", "dtype", "structure", "weak type"],
)
def test_what_changed_is_named(first, second, message):
    program = Program(lambda x: jax.tree.map(double, x), "doubling")
    call = Compilations({}, {})
    call(program, first)
    with pytest.warns(jdl.CompilationWarning, match=rf"doubling was compiled again: {message}"):
        call(program, second)


def test_a_setting_of_jax_that_changed_is_named():
    program, call = Program(double, "doubling"), Compilations({}, {})
    call(program, jnp.ones(3))
    with (
        jax.default_matmul_precision("highest"),
        pytest.warns(jdl.CompilationWarning, match="setting jax_default_matmul_precision: None became highest"),
    ):
        call(program, jnp.ones(3))


@dataclasses.dataclass(frozen=True)
class Scale:
    factor: float
    shift: tuple[int, ...] = (1, 2)

    def __call__(self, x):
        return self.factor * x


@cached_program
def scaled(scale, name="scaling"):
    return Program(lambda x: scale(x), name)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (Scale(3.0), r"0\.factor: 2\.0 became 3\.0"),
        (Scale(2.0, (1, 5)), r"0\.shift\.1: 2 became 5"),
        (lambda x: x, "another function of the same look|made anew each time|became"),
    ],
)
def test_a_static_setting_that_changed_is_named(new, message):
    scaled(Scale(2.0))(jnp.ones(3))
    scaled(new)(jnp.ones(3))
    assert re.search(
        rf"scaling was compiled for other settings than the last program of its name: .*({message})",
        scaled(new).what_changed(),
    )


def test_a_layer_of_other_settings_is_named():
    fit(nn.Chain(nn.Dense(6), nn.Dropout(0.25), nn.Dense(3)))
    with pytest.raises(jdl.TooManyCompilations, match=r"model\.entries\.1\.1\.rate: 0\.25 became 0\.35"):
        fit(nn.Chain(nn.Dense(6), nn.Dropout(0.35), nn.Dense(3)), max_compilations=0)


def test_phases_are_timed():
    run = fit(nn.Chain(nn.Dense(6), jnp.tanh, nn.Dense(4)), validation=HELD_OUT)
    assert run.compilations == {"train": 1, "evaluation": 1}
    assert set(run.compile_seconds) == {"train", "evaluation"}
    for phases in run.compile_seconds.values():
        assert set(phases) == {"trace", "lower", "compile"} and all(0 < seconds < 60 for seconds in phases.values())
    assert fit(nn.Chain(nn.Dense(6), jnp.tanh, nn.Dense(4))).compile_seconds == {}


@pytest.mark.slow
def test_more_compilations_than_allowed_are_an_error_before_anything_is_compiled():
    model = nn.Chain(nn.Dense(11), jnp.tanh, nn.Dense(3))
    with pytest.raises(jdl.TooManyCompilations, match=r"max_compilations=1; compiled: train 1, evaluation 1"):
        fit(model, validation=HELD_OUT, max_compilations=1)
    assert fit(model, validation=HELD_OUT, max_compilations=1).compilations == {"evaluation": 1}, "train was kept"


def test_a_program_that_fails_leaves_no_one_counting():
    call = Compilations({}, {}, limit=0)
    with pytest.raises(jdl.TooManyCompilations):
        call(Program(double, "doubling"), jnp.ones(3))
    assert float(Program(double, "doubling")(jnp.ones(()))) == 2


CACHE = """
import os, jax, numpy as np, optax, jdl
from jdl import nn
{before}
data = (np.ones((8, 5), np.float32), np.arange(8) % 3)
jdl.fit(nn.Chain(nn.Dense(3)), jdl.losses.cross_entropy, optax.sgd(0.1), data, steps=1, batch_size=8)
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["nothing", "another folder", "off"])
def test_what_is_compiled_is_kept_where_the_user_has_not_chosen(choice, tmp_path):
    own, others = tmp_path / "own", tmp_path / "others"
    before = {
        "nothing": "",
        "another folder": f"jax.config.update('jax_compilation_cache_dir', {str(others)!r})",
        "off": "jax.config.update('jax_enable_compilation_cache', False)",
    }[choice]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_COMPILATION_CACHE"}
    done = subprocess.run(
        [sys.executable, "-c", CACHE.format(before=before)],
        **{"cwd": ROOT, "capture_output": True, "text": True, "env": environment | {"JDL_CACHE_DIR": str(own)}},
    )
    assert done.returncode == 0, done.stderr
    kept = [path.name for path in (own / "compiled").glob("jit_train-*")]
    expected = {"nothing": own / "compiled", "another folder": others, "off": None}[choice]
    assert done.stdout.split()[-1] == str(expected)
    assert bool(kept) == (choice == "nothing")
