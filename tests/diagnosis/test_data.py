"""What is seen of data alone: scales, labels and rows, and the light form that ``fit`` takes."""

from __future__ import annotations

import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from jdl.data import Dataset
from jdl.diagnosis import findings as name
from jdl.diagnosis import light, rows
from jdl.diagnosis.inputs import check_inputs, off_scale

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(200, 6)).astype(np.float32)
PIXELS = np.where(RNG.random((60, 8, 8, 3)) < 0.5, 0, RNG.integers(0, 256, (60, 8, 8, 3)))
DENSE = nn.Chain(nn.Flatten(), nn.Dense(3))
CONV = nn.Chain(nn.Conv(4, 3), jax.nn.relu, nn.Flatten(), nn.Dense(3))


def columns(**changed) -> np.ndarray:
    """The standardised table with some columns (c0, c1, …) replaced by a function of them."""
    table = TABLE.copy()
    for column, function in changed.items():
        table[:, int(column[1:])] = function(table[:, int(column[1:])])
    return table


HEALTHY = {
    "standardised": TABLE,
    "with a constant": columns(c0=lambda x: 0 * x + 7),
    "with zeros and ones": columns(c0=lambda x: x > 0, c1=lambda x: x > 1.9),
    "one-hot": np.eye(6, dtype=np.float32)[RNG.integers(0, 6, 100)],
    "with a rare entry": columns(c0=lambda x: np.where(np.arange(200) == 3, 1e-4, 0)),
    "in 0 to 1": RNG.random((100, 6)),
    "pixels / 255": (PIXELS / 255).astype(np.float32),
    "pixels / 127.5 - 1": (PIXELS / 127.5 - 1).astype(np.float32),
    "flat pixels, empty border": (np.pad(PIXELS, ((0, 0), (4, 4), (4, 4), (0, 0))) / 255).reshape(60, -1),
    "heavy tails": RNG.standard_t(3, (500, 4)),
    "unit vectors of 64": (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True))(RNG.normal(size=(50, 64))),
    "sequences": RNG.normal(size=(20, 7, 5)),
}
PLANTED = {
    "pixels 0 to 255": (PIXELS.astype(np.float32), "root mean square above 10"),
    "one column in hundreds": (columns(c2=lambda x: 300 + 20 * x), "1 of 6 features"),
    "scaled twice": ((PIXELS / 255 / 255).astype(np.float32), "all together"),
    "one column very small": (columns(c4=lambda x: x / 1000), "differ in scale by a factor of 1"),
    "one column far off": (columns(c3=lambda x: 2 + x / 100), "offset by more than 30 times"),
    "all the same": (np.ones((20, 6), np.float32), "all 20 examples are the same"),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_healthy_inputs_give_none(case: str):
    assert off_scale(HEALTHY[case]) is None


@pytest.mark.parametrize("case", PLANTED)
def test_inputs_that_are_off_scale_are_found(case: str):
    values, words = PLANTED[case]
    (found,) = check_inputs(CONV if values.ndim == 4 else DENSE, values)
    assert found.name == name.INPUTS and found.path == "inputs" and words in found.measured
    assert "Normaliser" in found.try_


def test_the_numbers_are_those_of_numpy():
    values = columns(c2=lambda x: 300 + 20 * x)
    (found,) = check_inputs(DENSE, values)
    np.testing.assert_allclose(found.numbers["mean"], values.mean(0, np.float64), rtol=1e-6)
    np.testing.assert_allclose(found.numbers["std"], values.std(0, dtype=np.float64), rtol=1e-6)
    assert f"{values[:, 2].mean():.3g}" in found.measured


@pytest.mark.parametrize("data", ["digits", "breast_cancer", "diabetes"])
def test_the_tables_as_loaded(data: str):
    splits = jdl.data.load(data)
    assert check_inputs(DENSE, splits.train.inputs) == [] == rows.check_overlap(splits.train.inputs, splits.test.inputs)
    if data != "digits":  # 0 to 16: off, but learned from all the same
        raw = jdl.data.load(data, normalise=False)
        assert [found.name for found in check_inputs(DENSE, raw.train.inputs)] == [name.INPUTS]


def as_floats(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32)


def scaled(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) / 255


class Inner(nn.Layer):
    centre: bool

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32).reshape(len(x), -1)
        return net.child("head", nn.Dense(3))((x - 60) / 90 if self.centre else x)


@pytest.mark.parametrize(
    ("model", "inputs", "found"),
    [
        (nn.Chain(as_floats, CONV), PIXELS.astype(np.uint8), True),
        (nn.Chain(scaled, CONV), PIXELS.astype(np.uint8), False),
        (nn.Chain(as_floats, nn.BatchNorm(), CONV), PIXELS.astype(np.uint8), False),
        (Inner(False), PIXELS.astype(np.float32), True),
        (Inner(True), PIXELS.astype(np.float32), False),
        (nn.Remat(Inner(False)), PIXELS.astype(np.float32), True),
        (nn.Remat(Inner(True)), PIXELS.astype(np.float32), False),
        (nn.Repeat(nn.Dense(6), 2), 100 * TABLE, True),
        (nn.Chain(nn.LayerNorm(), nn.Dense(3)), 100 * TABLE, False),
        (nn.Chain(nn.Embedding(500, 4), nn.Flatten(), nn.Dense(3)), RNG.integers(0, 500, (40, 5)), False),
    ],
)
def test_only_what_meets_weights_as_it_is_counts(model: nn.Layer, inputs: np.ndarray, found: bool):
    assert bool(check_inputs(model, inputs)) is found


def test_several_inputs_are_told_apart():
    both = nn.Chain(nn.Parallel(nn.Dense(3), nn.Dense(3)), jnp.add)

    class Two(nn.Layer):
        def forward(self, net: nn.Net, near: jax.Array, far: jax.Array) -> jax.Array:
            return net.child("near", nn.Dense(3))(near) + net.child("far", nn.Dense(3))(far)

    assert [found.path for found in check_inputs(Two(), {"near": TABLE, "far": 100 * TABLE})] == ["inputs/far"]
    assert check_inputs(both, TABLE) == []


def test_overlap_names_share_and_examples():
    held_out = RNG.normal(size=(50, 6)).astype(np.float32)
    held_out[[4, 17, 30]] = TABLE[[9, 2, 150]]
    (found,) = rows.check_overlap(TABLE, held_out)
    assert found.name == name.OVERLAP
    assert found.numbers["share"] == 3 / 50
    assert sorted(found.numbers["pairs"]) == [(4, 9), (17, 2), (30, 150)]
    assert "3 of 50 validation examples (6.0%)" in found.measured and "17 = 2" in found.measured
    assert rows.check_overlap(TABLE, held_out + 1e-6) == []
    assert rows.check_overlap(TABLE, held_out[:, :3]) == []


def test_overlap_looks_at_every_input_of_an_example():
    one, other = {"a": TABLE, "b": TABLE[::-1]}, {"a": TABLE[:40], "b": TABLE[:40]}
    assert rows.check_overlap(one, other) == []
    assert len(rows.check_overlap(one, {"a": TABLE[:40], "b": TABLE[::-1][:40]})) == 1


def test_rows_that_repeat_by_nature_do_not_count():
    bits = RNG.integers(0, 2, (400, 5))
    assert rows.check_overlap(bits[:300], bits[300:]) == []
    assert rows.check_overlap(bits[:300].astype(np.float32), bits[300:].astype(np.float32)) == []


def test_a_few_accidents_among_many_do_not_count():
    held_out = RNG.normal(size=(500, 6)).astype(np.float32)
    held_out[7] = TABLE[7]
    assert rows.check_overlap(TABLE, held_out) == []


def test_large_data_is_searched_in_part(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "SEARCHED", 100)
    monkeypatch.setattr(rows, "LOOKED_UP", 50)
    (found,) = rows.check_overlap(TABLE, TABLE)
    assert 0 < found.numbers["share"] < 1 and "of 50 validation examples looked at" in found.measured
    assert all(there == here for there, here in found.numbers["pairs"])


def test_groups_are_those_of_equal_rows():
    part = np.concatenate([TABLE[:4], TABLE[1:3], TABLE[:1]])
    np.testing.assert_array_equal(rows.groups(part), [0, 1, 2, 3, 1, 2, 0])
    np.testing.assert_array_equal(rows.groups((part, np.arange(7))), np.arange(7))


def light_names(train: Dataset, validation: Dataset | None, loss=jdl.losses.cross_entropy) -> list[str]:
    return [found.name for found in light(jdl.supervised(DENSE, loss), DENSE, train, validation)]


def test_light():
    train, held_out = Dataset.of((TABLE[:150], RNG.integers(0, 3, 150))), Dataset.of((TABLE[150:], np.arange(50) % 3))
    assert light_names(train, held_out) == []
    assert light_names(train, None) == [name.NO_VALIDATION]
    assert light_names(train, train) == [name.OVERLAP]
    assert light_names(train.map(inputs=lambda x: 100 * x), held_out) == [name.INPUTS]
    assert light_names(train.map(targets=lambda y: 0 * y + 2), held_out) == [name.LABELS]
    assert light_names(train.map(targets=lambda y: np.eye(3)[0 * y]), held_out) == [name.LABELS]
    assert light(None, DENSE, train, held_out) == []
    assert light(None, DENSE, iter([]), held_out) == []  # a stream is not in memory


@pytest.mark.slow
def test_light_takes_milliseconds_at_the_size_of_mnist():
    pixels = RNG.random((55_000, 28, 28, 1), np.float32)
    train, held_out = (
        Dataset.of((pixels[:50_000], np.arange(50_000) % 10)),
        Dataset.of((pixels[50_000:], np.arange(5000))),
    )
    objective = jdl.supervised(DENSE, jdl.losses.cross_entropy)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        assert light(objective, DENSE, train, held_out) == []
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.1  # 20 ms on a quiet machine


def test_fit_warns_and_keeps_the_findings():
    data = Dataset.of((100 * TABLE, np.arange(200) % 3))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run = jdl.fit(DENSE, jdl.losses.cross_entropy, optax.sgd(1e-4), data, steps=1)
    assert [found.name for found in run.findings] == [name.INPUTS, name.NO_VALIDATION]
    warned = [str(one.message) for one in seen if issubclass(one.category, jdl.PitfallWarning)]
    assert len(warned) == 1 and warned[0].startswith(name.INPUTS)
