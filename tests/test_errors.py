"""Bad input, one row each: refused before any arithmetic; the message says what came, what was wanted, and a fix."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import data, nn
from jdl.check import InputError

KEY = jax.random.key(0)
X, Y = np.ones((8, 5), np.float32), np.arange(8) % 3


def init(model: nn.Layer, *shape: int, dtype: str = "float32") -> jdl.Variables:
    return model.init(KEY, jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)))


def fit(inputs=X, targets=Y, loss=jdl.losses.cross_entropy):
    return jdl.fit(nn.Chain(nn.Dense(3)), loss, optax.sgd(0.1), (inputs, targets), epochs=1, batch_size=4)


def convolutional_net() -> nn.Chain:
    """The handout's network, which counts on 64 · 14 · 14 features."""
    return nn.Chain(
        conv=nn.Conv(64, 3, padding="VALID"),
        act=nn.relu,
        pool=nn.MaxPool(2),
        flat=nn.Reshape((64 * 14 * 14,)),
        fc=nn.Dense(10),
    )


class InScan(nn.Layer):
    inner: nn.Layer

    def forward(self, net, x):
        return jax.lax.scan(lambda carry, _: (net.inner(carry), None), x, None, length=3)[0]


class Counts(nn.Layer):
    def state(self, x):
        return {"count": nn.Param((), nn.init.zeros())}

    def forward(self, net, x):
        net.update(count=net.count + 1)
        return x


def train(model: nn.Layer, x: np.ndarray, key: jax.Array | None = KEY):
    return model.apply(*model.init(KEY, x), x, key=key, train=True)


def reserved() -> None:
    class Bad(nn.Layer):
        params: int  # pyright: ignore[reportIncompatibleMethodOverride]


class Declares(nn.Layer):
    made: Callable[..., object]

    def params(self, x):
        return {"w": self.made(x.shape[-1])}

    def forward(self, net, x):
        return x * net.w


class Holds(nn.Layer):
    value: object

    def forward(self, net, x):
        return x


ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "wrong rank into Conv": (
        lambda: init(nn.Chain(stem=nn.Conv(8, (3, 3))), 32, 28, 28),
        r"in stem: Conv.*float32\[32, 28, 28\], wanted \[B, H, W, C\].*x\[\.\.\., None\]",
    ),
    "64·14·14 on 32×32": (
        lambda: init(convolutional_net(), 4, 32, 32, 3),
        r"in flat: Reshape.*float32\[4, 15, 15, 64\].*14400.*12544",
    ),
    "weights for 64·14·14 on 32×32": (
        lambda: nn.Dense(10).apply({"kernel": jnp.ones((12544, 10)), "bias": jnp.ones(10)}, {}, jnp.ones((4, 14400))),
        r"float32\[4, 14400\].*kernel is float32\[14400, 10\], but it is float32\[12544, 10\]",
    ),
    "a forgotten Flatten": (
        lambda: nn.Dense(10).apply({"kernel": jnp.ones((784, 10)), "bias": jnp.ones(10)}, {}, jnp.ones((4, 28, 28))),
        r"float32\[4, 28, 28\].*did you mean nn\.Flatten\(\)",
    ),
    "labels out of range": (lambda: fit(targets=Y + 1), r"3.*0.*2|0 to 2|0\.\.2"),
    "labels as floats": (lambda: fit(targets=Y.astype(np.float32)), r"float32\[8\].*int"),
    "three labels for two": (
        lambda: jdl.fit(nn.Dense(1), jdl.losses.binary_cross_entropy, optax.sgd(0.1), (X, Y), epochs=1, batch_size=4),
        r"targets got values from 0.* to 2.*, wanted 0 to 1",
    ),
    "a mask of 0 and 255": (
        lambda: jdl.fit(
            nn.Dense(1), jdl.losses.dice, optax.sgd(0.1), (X, 255 * (Y > 0)[:, None]), epochs=1, batch_size=4
        ),
        r"targets got values from 0.* to 255.*, wanted 0 to 1",
    ),
    "several labels, and a metric of one": (
        lambda: jdl.fit(
            *(nn.Dense(3), jdl.losses.binary_cross_entropy, optax.sgd(0.1), (X, np.float32(Y[:, None] > np.arange(3)))),
            metrics=[jdl.metrics.accuracy],
            epochs=1,
            batch_size=4,
        ),
        r"in data: targets got .*rows add up to 0 to 2.*metrics\.accuracy\(outputs\[\.\.\., None\], targets\)",
    ),
    "margins from 0": (
        lambda: jdl.fit(nn.Dense(1), jdl.losses.hinge, optax.sgd(0.1), (X, (Y > 0) * 1.0), epochs=1, batch_size=4),
        r"targets got values from 0.* to 1.*, wanted -1 and 1",
    ),
    "different batches": (
        lambda: jdl.losses.cross_entropy(jnp.ones((8, 3)), jnp.zeros(7, jnp.int32)),
        r"float32\[8, 3\].*int32\[7\]",
    ),
    "NaN in the data": (lambda: fit(inputs=np.where(np.arange(5) == 2, np.nan, X)), r"inputs.*NaN"),
    "empty data": (lambda: fit(X[:0], Y[:0]), r"no examples|0 examples|empty"),
    "unknown data set": (lambda: data.load("digist"), r"digist.*digits"),
    "missing key for dropout": (
        lambda: train(nn.Chain(nn.Dense(3), drop=nn.Dropout(0.5)), X, key=None),
        r"in drop: Dropout\(0\.5\).*key=None.*jax\.random\.key",
    ),
    "parameters of another model": (
        lambda: nn.Chain(nn.Dense(3), nn.Dense(4)).apply(*init(nn.Chain(nn.Dense(7)), 8, 5), X),
        r"in 0: Dense\(3\).*float32\[5, 3\], but it is float32\[5, 7\].*another model",
    ),
    "parameters of a smaller model": (
        lambda: nn.Chain(nn.Dense(3), nn.Dense(4)).apply(*init(nn.Chain(nn.Dense(3)), 8, 5), X),
        r"in 1: Dense\(4\).*no array 'kernel'.*did init reach this sub-layer",
    ),
    "a pattern that matches nothing": (
        lambda: jdl.freeze(init(nn.Chain(nn.Dense(3)), 8, 5), "encoder/**"),
        r"'encoder/\*\*' matches none of 2 paths; near it: 0/",
    ),
    "duplicate names in Chain": (
        lambda: nn.Chain(nn.Dense(3), **{"0": nn.Dense(4)}),
        r"Chain got the name '0' twice.*rename",
    ),
    "a batch that does not divide": (
        lambda: jdl.accumulate(lambda *_: None, 3)({}, {}, {"inputs": jnp.ones((8, 5))}, None),
        r"accumulate got float32\[8, 5\].*3 microbatches",
    ),
    "a callable that is not jittable": (
        lambda: init(nn.Chain(nn.Dense(3), np.tanh), 8, 5),
        r"in 1: tanh.*cannot be traced.*jax\.numpy",
    ),
    "int input to a float model": (
        lambda: init(nn.Chain(nn.Dense(3)), 8, 5, dtype="int32"),
        r"in 0: Dense\(3\).*int32\[8, 5\].*floating.*astype",
    ),
    "a call without variables": (
        lambda: nn.Dense(3)(X),
        r"Dense got float32\[8, 5\] for variables; call model\(variables, x\)",
    ),
    "init without inputs": (lambda: nn.Dense(3).init(KEY), r"Dense got no inputs; .*init\(key, x\)"),
    "an array for a Param": (lambda: init(Declares(jnp.ones), 8, 5), r"declares 'w' as float32\[5\], wanted nn.Param"),
    "a list in Chain": (lambda: nn.Chain([nn.Dense(3)]), r"Chain\(\*layers\)"),
    "channels first": (
        lambda: nn.Chain(nn.Conv(4, 3))(
            init(nn.Chain(nn.Conv(4, 3)), 2, 28, 28, 1), np.ones((2, 1, 28, 28), "float32")
        ),
        r"channels come last: x\.transpose\(0, 2, 3, 1\)",
    ),
    "running statistics unfrozen": (
        lambda: nn.BatchNorm()(jdl.unfreeze(init(nn.BatchNorm(), 8, 5), "**"), X),
        r"'mean' is state and stands in params",
    ),
    "a reserved field": (reserved, r"'params' of Bad is a reserved name"),
    "an unhashable field": (lambda: Holds({"a": 1}), r"Holds\.value.*unhashable"),
    "an array in a field": (lambda: Holds(jnp.ones(3)), r"Holds\.value got the array float32\[3\]"),
    "a key drawn inside a scan": (
        lambda: train(InScan(nn.Dropout(0.5)), X),
        r"in inner: Dropout.*draws a key inside a jax transform.*net\.name\(x, key=k\)",
    ),
    "state updated inside a scan": (
        lambda: train(InScan(Counts()), X),
        r"in inner: Counts.*updates its state inside a jax transform.*nn\.Repeat",
    ),
    "one value per feature": (
        lambda: train(nn.Chain(nn.BatchNorm()), X[:1]),
        r"in 0: BatchNorm.*float32\[1, 5\].*LayerNorm",
    ),
}


@pytest.mark.parametrize("name", ["Linear", "Sequential", "Conv2d"])
def test_names_of_other_libraries_lead_to_ours(name):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; jdl calls it nn"):
        getattr(nn, name)


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    make, message = ERRORS[name]
    with pytest.raises(InputError, match=message):
        make()


def test_a_corrupt_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JDL_DATA_DIR", raising=False)
    monkeypatch.setenv("JDL_CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "table.csv"
    source.write_text("1,2,3\n")
    good = hashlib.sha256(source.read_bytes()).hexdigest()
    assert data.fetch("set", "table.csv", [source.as_uri()], checksum=f"sha256:{good}").read_text() == "1,2,3\n"
    source.write_text("1,2,4\n")
    (tmp_path / "cache" / "set" / "table.csv").unlink()
    with pytest.raises(data.CorruptData, match=good[:8]):
        data.fetch("set", "table.csv", [source.as_uri()], checksum=f"sha256:{good}")
    assert not list((tmp_path / "cache").rglob("table.csv*")), "nothing of it is kept"


def test_an_archive_that_writes_outside_its_folder(tmp_path: Path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("fine.txt", "1")
        archive.writestr("../outside.txt", "2")
    (tmp_path / "set.zip").write_bytes(packed.getvalue())
    with pytest.raises(data.UnsafeArchive, match=r"\.\./outside\.txt"):
        data.extract(tmp_path / "set.zip", tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.zip"]
