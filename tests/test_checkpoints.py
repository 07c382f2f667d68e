"""Checkpoints on disk: exact, whole or not there, and every damage found and named."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from jdl.checkpoints import Store, files
from tests.networks import batch_of, classify, mesh_of_two

ROOT = Path(__file__).parents[1]
STATE = {"w": jnp.arange(6.0).reshape(2, 3), "step": jnp.asarray(3)}


def open_store(folder: Path, **options) -> Store:
    return jdl.Checkpoints(folder, **options).open()


def write_steps(folder: Path, *steps: int, **options) -> None:
    """Checkpoints whose arrays hold their step."""
    with open_store(folder, **options) as store:
        for step in steps:
            store.save(step, {"w": jnp.full((3,), float(step)), "n": jnp.asarray(step)}, {"at": step})


LIKE = {"w": jnp.zeros(3), "n": jnp.asarray(0)}


def data_of(leaf) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def assert_same(a, b) -> None:
    """Structure, dtype and bytes; and nothing found has a weak type."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert not getattr(x, "weak_type", False)
        assert data_of(x).tobytes() == data_of(y).tobytes()


@pytest.fixture(scope="module")
def trained():
    """A run's step and state with all that a state can hold, and a batch: dropout, BatchNorm, Adam with a schedule, an
    average, microbatches.
    """
    model = nn.Chain(nn.Dense(6), nn.BatchNorm(), nn.Dropout(0.3), jnp.tanh, nn.Dense(3))
    schedule = optax.cosine_decay_schedule(1e-2, 50)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule), jdl.average_params(0.9))
    gradient = jdl.accumulate(jdl.gradient(classify(model)), microbatches=2)
    batch = batch_of(8)
    step = jax.jit(jdl.make_step(gradient, optimizer), donate_argnums=0)
    state, _ = step(jdl.init_state(model, optimizer, batch), batch)
    return step, state, batch


def copy(tree):
    return jax.tree.map(jnp.copy, tree)


# what comes back


@pytest.mark.slow
def test_a_train_state_comes_back_to_the_bit_and_goes_on_the_same(tmp_path, trained):
    step, state, batch = trained
    with open_store(tmp_path) as store:
        store.save(1, (state, {"loss": jnp.float32(2.0)}), {"history": []})
        abstract = jax.eval_shape(lambda: (state, {"loss": jnp.float32(0)}))
        for like in ((state, {"loss": jnp.float32(0)}), abstract):
            saved = store.restore(like)
            assert_same(saved.state, (state, {"loss": jnp.float32(2.0)}))
    assert saved.step == 1 and saved.extra == {"history": []}
    compiled = step._cache_size()
    for _ in range(3):
        expected, _ = step(copy(state), batch)
        found, _ = step(saved.state[0] if _ == 0 else copy(state), batch)
    assert_same(found, expected)
    assert step._cache_size() == compiled, "a restored state compiles nothing new"


def test_buffers_may_be_donated_right_after_a_save(tmp_path, trained):
    step, state, batch = trained
    state, first = copy(state), jax.tree.map(lambda leaf: np.array(data_of(leaf)), state)
    with open_store(tmp_path) as store:
        store.save(1, state)
        for _ in range(5):  # overwrite what was saved while it is being written
            state, _ = step(state, batch)
        saved = store.restore(state)
    for x, y in zip(jax.tree.leaves(saved.state), jax.tree.leaves(first), strict=True):
        np.testing.assert_array_equal(data_of(x), y)


def test_arrays_of_the_caller_may_change_right_after_a_save(tmp_path):
    w, extra = np.ones(1000), {"c": np.ones(1000), "rows": [1]}
    with open_store(tmp_path) as store:
        store.save(1, {"w": w}, extra)
        w[:], extra["c"][:] = 7, 7
        extra["rows"].append(2)
        saved = store.restore({"w": w})
    assert (saved.state["w"] == 1).all() and (saved.extra["c"] == 1).all() and saved.extra["rows"] == [1]


@pytest.mark.parametrize(
    "leaf",
    [
        *(jnp.ones((2, 3), name) for name in ("bfloat16", "float16", "int8", "uint32", "bool", "complex64", "int4")),
        jnp.ones((), jnp.bfloat16),
        jnp.zeros((0, 3)),
        jax.random.key(3),
        jax.random.split(jax.random.key(3), 4),
        jax.random.key(3, impl="rbg"),
        np.arange(3, dtype=np.int64),
        np.arange(6.0).reshape(2, 3).T,
    ],
    ids=lambda leaf: str(leaf.dtype) + str(leaf.shape),
)
def test_every_dtype_comes_back(tmp_path, leaf):
    tree = {"a": [leaf, None, {}, ()], "b": optax.EmptyState()}
    with open_store(tmp_path) as store:
        store.save(0, tree)
        found = store.restore(tree).state
    assert_same(found, tree)
    assert type(found["a"][0]) is type(leaf)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        assert jax.random.key_impl(found["a"][0]) == jax.random.key_impl(leaf)


def test_a_state_may_be_one_array_or_none(tmp_path):
    with open_store(tmp_path) as store:
        store.save(0, jnp.arange(3))
        assert_same(store.restore(jnp.zeros(3, jnp.int32)).state, jnp.arange(3))
        store.save(1, {}, {"a": 1})
        assert store.restore({}).extra == {"a": 1}


def test_shardings_are_those_of_like(tmp_path):
    mesh = mesh_of_two()
    sharded = jax.device_put(jnp.arange(8.0), jax.NamedSharding(mesh, jax.P("devices")))
    with open_store(tmp_path) as store:
        store.save(0, {"x": sharded, "y": jnp.ones(2)})
        found = store.restore({"x": sharded, "y": jnp.ones(2)}).state
        assert found["x"].sharding == sharded.sharding and found["x"].committed and not found["y"].committed
        abstract = {"x": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharded.sharding), "y": jnp.ones(2)}
        assert store.restore(abstract).state["x"].sharding == sharded.sharding
        moved = store.restore({"x": jnp.zeros(8), "y": jnp.ones(2)}).state
    assert_same(moved, {"x": jnp.arange(8.0), "y": jnp.ones(2)})


EXTRA = {
    "floats": [math.nan, math.inf, -math.inf, -0.0, 0.1, 1e308, 5e-324],
    "integers": [2**100, -(2**63), 0],
    "others": [None, True, False, "", 'ünï"c\\ode\n\x00\U0001f600'],
    "nested": {"": {"a/b": [[], {}, [[1]]]}},
    "values": "arrays",
}


def test_extra_comes_back_equal(tmp_path):
    with open_store(tmp_path) as store:
        store.save(0, {}, EXTRA | {"tuple": (1, (2, 3))})
        found = store.restore({}).extra
    assert found.pop("tuple") == [1, [2, 3]]
    assert repr(found) == repr(EXTRA), "1 is not 1.0, and nan is no nan's equal"


def test_arrays_come_back_from_extra_anywhere(tmp_path):
    key = jax.random.key(5)
    arrays = {
        "history": [{"confusion": np.arange(4).reshape(2, 2)}, {"confusion": np.zeros((0, 2), np.float32)}],
        "best": {"0": {"kernel": jnp.ones(2, jnp.bfloat16)}},
        "scalar": np.float32(0.1),
        "key": key,
    }
    with open_store(tmp_path) as store:
        store.save(0, {}, arrays)
        found = store.restore({}).extra
        store.save(1, {}, np.arange(3))
        assert store.restore({}).extra.tolist() == [0, 1, 2]
    assert jax.random.key_data(found.pop("key")).tolist() == jax.random.key_data(arrays.pop("key")).tolist()
    assert isinstance(found["best"]["0"]["kernel"], np.ndarray)
    assert_same(found, jax.tree.map(np.asarray, arrays))
    found["history"][0]["confusion"][0, 0] = 9  # one's own, to change


@pytest.mark.parametrize(
    ("state", "extra", "message"),
    [
        ({"a": 1.0}, None, r"in state: a got 1.0, wanted an array"),
        ({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, None, "two leaves have the path 'a/b'"),
        ({}, {"a": {1: 2}}, r"in extra: a got the key 1, wanted a string"),
        ({}, {"a": [object]}, r"in extra: a/0 got type"),
        ({}, {"a": {"b": {1, 2}}}, r"in extra: a/b got set \{1, 2\}"),
        ({}, {"a": np.array(["x"])}, r"in extra: a got ndarray"),
    ],
)
def test_what_cannot_be_saved_is_refused_at_once(tmp_path, state, extra, message: str):
    with open_store(tmp_path) as store:
        with pytest.raises(jdl.InputError, match=message):
            store.save(0, state, extra)
        assert store.restore({}) is None


def test_versions_and_circumstances_stand_in_the_manifest(tmp_path):
    write_steps(tmp_path, 4)
    manifest = json.loads((tmp_path / "step_00000004" / "manifest.json").read_text())
    assert manifest["versions"] | {"jax": jax.__version__, "optax": optax.__version__} == manifest["versions"]
    assert {"python", "jdl", "jaxlib", "numpy"} <= manifest["versions"].keys()
    assert manifest["device"] == f"cpu: {jax.devices()[0].device_kind}"
    assert manifest["arrays"]["w"] == {"leaf": "float32[3]", "dtype": "float32", "shape": [3]}
    assert jdl.Checkpoints(tmp_path).restore(LIKE).versions == manifest["versions"]


def test_orbax_and_sha256sum_can_read_a_checkpoint_without_us(tmp_path):
    import orbax.checkpoint as ocp

    write_steps(tmp_path, 4)
    with ocp.PyTreeCheckpointer() as checkpointer:
        assert checkpointer.restore(tmp_path / "step_00000004" / "arrays")["w"].tolist() == [4, 4, 4]
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=tmp_path / "step_00000004", check=True)


# where they stand


@pytest.mark.parametrize("name", ["rel", "a/b/c", "a b", "ü", "x?y", "x%20y", "x#y", "[ab]*", "../up", "~/home"])
def test_any_folder_will_do_and_stays_the_same_where_the_directory_changes(tmp_path, monkeypatch, name: str):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(here)
    place = (tmp_path / name[2:]) if name.startswith("~") else here / name
    checkpoints = jdl.Checkpoints(name)
    with checkpoints.open() as store:
        assert store.folder == place and store.settings.folder == name
        monkeypatch.chdir(there)
        store.save(1, STATE)
        assert_same(store.restore(STATE).state, STATE)
    assert files.verify(place / "step_00000001") and not any(there.iterdir())
    monkeypatch.chdir(here)
    assert checkpoints.steps() == [1] and checkpoints.best_step() is None
    assert_same(checkpoints.restore(STATE).state, STATE)
    assert_same(checkpoints.restore(STATE, step=1).state, STATE)


@pytest.mark.parametrize("folder", ["gs://bucket/a", "s3://b", "file:///tmp/a", Path("gs://bucket/a"), "a b://c"])
def test_a_remote_folder_is_refused(folder: str | Path):
    with pytest.raises(jdl.InputError, match=r"in Checkpoints: folder got .*, wanted one on this machine; mount"):
        jdl.Checkpoints(folder)


@pytest.mark.parametrize("name", ["file/x", "file/x/y", "n" * 300, "zero\0", "loop/x"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, name: str):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(jdl.InputError, match=r"in checkpoint: '.*' cannot be made or written to: .*name a folder"):
        open_store(tmp_path / name)


@pytest.mark.parametrize("function", ["mkdir", "open"])
def test_a_folder_that_one_may_not_write_to_is_refused(tmp_path, monkeypatch, function: str):
    def refuse(self, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, function, refuse)  # the tests may run as root, whom nothing stops
    with pytest.raises(jdl.InputError, match=r"cannot be made or written to: .*Permission denied.*name a folder"):
        open_store(tmp_path)


# which ones stay


@pytest.mark.parametrize(
    ("options", "reports", "kept"),  # reports: (step, value of the metric)
    [
        ({"keep": 1}, [(1, 0.0), (2, 0.0)], [2]),
        ({"keep": 2}, [(1, 0.0), (2, 0.0), (3, 0.0), (10, 0.0)], [3, 10]),
        ({"keep": 1, "best": "validation_loss"}, [(1, 3.0), (2, 1.0), (3, 2.0), (4, 2.0)], [2, 4]),
        ({"keep": 1, "best": "validation_accuracy"}, [(1, 0.3), (2, 0.1), (3, 0.2)], [1, 3]),
        ({"keep": 1, "best": "validation_accuracy", "mode": "min"}, [(1, 0.3), (2, 0.1), (3, 0.2)], [2, 3]),
        ({"keep": 1, "best": "loss"}, [(1, math.nan), (2, 1.0), (3, math.nan)], [2, 3]),
        ({"keep": 1, "best": "loss"}, [(1, 1.0), (2, 1.0), (3, 1.0)], [1, 3]),
        ({"keep": 1, "best": "loss"}, [(1, 1.0), (2, None), (3, None)], [1, 3]),
    ],
)
def test_the_newest_and_the_best_stay(tmp_path, options, reports, kept: list[int]):
    settings = jdl.Checkpoints(tmp_path, **options)
    name = settings.best or "loss"
    for step, value in reports:  # each time opened anew: what is best is read from the folder
        with settings.open() as store:
            store.save(step, LIKE, None, None if value is None else {name: value, "matrix": np.ones((2, 2))})
    assert settings.steps() == kept
    assert settings.best_step() == (kept[0] if settings.best else None)


def test_best_must_be_a_number_of_the_report(tmp_path):
    with (
        open_store(tmp_path, best="validation_los") as store,
        pytest.raises(
            jdl.InputError, match="best got 'validation_los', wanted one of the report's numbers: loss, validation_loss"
        ),
    ):
        store.save(1, LIKE, None, {"loss": 1.0, "validation_loss": 1.0, "matrix": np.ones((2, 2))})


def test_a_step_saved_again_is_replaced(tmp_path):
    with open_store(tmp_path) as store:
        store.save(1, LIKE, "first")
        store.save(1, LIKE, "second")
        assert store.restore(LIKE).extra == "second"
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "step_00000001"}


def test_older_ones_go_only_when_the_newer_one_is_whole(tmp_path, monkeypatch):
    seen = []

    def remove(folder: Path) -> None:
        if folder.name.startswith(".removed"):
            files.verify(tmp_path / "step_00000002")
            seen.append(folder.name)
        shutil.rmtree(folder, ignore_errors=True)

    monkeypatch.setattr(files, "remove", remove)
    write_steps(tmp_path, 1, 2, keep=1)
    assert seen == [".removed_step_00000001"]


@pytest.mark.parametrize(
    "options",
    [{"every": 0}, {"every": True}, {"keep": 0}, {"keep": None}, {"best": 3}, {"mode": "min"}, {"folder": __file__},
     {"best": "loss", "mode": "least"}, {"folder": None}],
)  # fmt: skip
def test_settings_that_cannot_be_meant(options):
    with pytest.raises(jdl.InputError, match=f"in Checkpoints: {list(options)[-1]} got"):
        jdl.Checkpoints(**{"folder": "x"} | options)


# damage


def truncate(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def drop(path: Path, rng: random.Random) -> None:
    path.unlink()


def extend(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, flip, drop, extend])
def test_every_file_damaged_in_turn_is_found_and_named(tmp_path, damage):
    whole, folder = tmp_path / "whole", tmp_path / "damaged"
    write_steps(whole, 1, 2)
    names = [str(path.relative_to(whole)) for path in sorted((whole / "step_00000002").rglob("*")) if path.is_file()]
    assert len(names) > 8 and "step_00000002/manifest.json" in names and "step_00000002/manifest.sha256" in names
    for seed, name in enumerate(names):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        damage(folder / name, random.Random(seed))
        with pytest.warns(jdl.CheckpointWarning) as caught, open_store(folder) as store:
            saved = store.restore(LIKE)
            assert_same(saved.state, {"w": jnp.full(3, 1.0), "n": jnp.asarray(1)})
            assert saved.step == 1 and saved.extra == {"at": 1}
            assert (folder / "damaged_step_00000002").is_dir() and not (folder / "step_00000002").exists()
            store.save(2, LIKE)  # the step can be saved again
        file = name.removeprefix("step_00000002/")
        text = str(caught[0].message)
        assert len(caught) == 1 and "step_00000002 is damaged" in text and "newest good one is of step 1" in text
        assert file in text or (file == "manifest.sha256" and "manifest.json" in text)
        assert jdl.Checkpoints(folder).steps() == [1, 2]


def test_all_that_is_wrong_is_named_and_the_first_good_one_used(tmp_path):
    write_steps(tmp_path, 1, 2, 3)
    (tmp_path / "step_00000003" / "extra.json").unlink()
    (tmp_path / "step_00000003" / "arrays" / "_METADATA").write_bytes(b"")
    shutil.rmtree(tmp_path / "step_00000002" / "arrays")
    with pytest.warns(jdl.CheckpointWarning) as caught, open_store(tmp_path) as store:
        assert store.restore(LIKE).step == 1
    assert len(caught) == 2 and "arrays/_METADATA is missing" in str(caught[1].message)
    assert re.search(
        r"arrays/_METADATA has 0 bytes where \d+ were written; extra.json is missing", str(caught[0].message)
    )


def test_a_file_too_many_does_no_harm(tmp_path):
    write_steps(tmp_path, 1)
    (tmp_path / "step_00000001" / "notes.txt").write_text("the good one")
    with open_store(tmp_path) as store:
        assert store.restore(LIKE).step == 1


def test_nothing_starts_anew_where_all_are_damaged(tmp_path):
    write_steps(tmp_path, 1, 2)
    for step in (1, 2):
        flip(tmp_path / f"step_0000000{step}" / "manifest.json", random.Random(0))
    for _ in range(2):  # and not the second time either
        with (
            open_store(tmp_path) as store,
            pytest.raises(jdl.InputError, match=r"every checkpoint .* is damaged") as caught,
        ):
            store.restore(LIKE)
        assert "step 1: manifest.json does not fit" in str(caught.value) and "step 2:" in str(caught.value)


def test_a_damaged_checkpoint_is_set_aside_beside_an_older_one(tmp_path):
    for _ in range(2):
        write_steps(tmp_path, 1, 2)
        drop(tmp_path / "step_00000002" / "extra.json", random.Random(0))
        with pytest.warns(jdl.CheckpointWarning), open_store(tmp_path) as store:
            store.restore(LIKE)
    assert {path.name for path in tmp_path.glob("damaged*")} == {"damaged_step_00000002", "damaged_step_00000002_2"}


def test_a_checkpoint_of_a_newer_format_is_not_taken_for_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FORMAT", files.FORMAT + 1)
    write_steps(tmp_path, 1)
    monkeypatch.undo()
    with open_store(tmp_path) as store, pytest.raises(jdl.InputError, match="update jdl"):
        store.restore(LIKE)
    assert jdl.Checkpoints(tmp_path).steps() == [1]


# another model


def test_every_difference_from_the_model_is_named_and_nothing_older_used(tmp_path):
    saved = {"a": jnp.ones((2, 3)), "b": jnp.ones(3), "c": jnp.ones(3), "k": jax.random.key(0), "same": jnp.ones(1)}
    like = {"a": jnp.ones((2, 4)), "b": jnp.ones(3, jnp.bfloat16), "d": jnp.ones(3), "same": jnp.ones(1)}
    like["k"] = jax.random.key(0, impl="rbg")
    with open_store(tmp_path) as store:
        store.save(1, like)
        store.save(2, saved)
        with pytest.raises(jdl.InputError, match="step_00000002 does not fit: 5 of 6 arrays differ") as caught:
            store.restore(like)
    assert str(caught.value).splitlines()[1:] == [
        "  a: float32[2, 3] in the checkpoint, float32[2, 4] in the model",
        "  b: float32[3] in the checkpoint, bfloat16[3] in the model",
        "  d: float32[3] in the model, missing in the checkpoint",
        "  k: key<fry>[] in the checkpoint, key<rbg>[] in the model",
        "  c: float32[3] in the checkpoint, not in the model",
    ]
    assert jdl.Checkpoints(tmp_path).steps() == [1, 2]


# reading without a run


def test_a_checkpoint_is_read_without_a_run(tmp_path, trained):
    _, state, _ = trained
    checkpoints = jdl.Checkpoints(tmp_path)
    assert checkpoints.steps() == [] and checkpoints.best_step() is None
    with pytest.raises(jdl.InputError, match="there is no checkpoint"):
        checkpoints.restore(LIKE)
    with checkpoints.open() as store:
        store.save(1, {"state": state, "totals": jnp.ones(2)}, {"at": 1})
        store.save(2, {"state": state, "totals": jnp.zeros(2)}, {"at": 2})
        store.wait()
        # reading needs no lock
        assert_same(checkpoints.restore(state, at="state").state, state)
        assert_same(checkpoints.restore(state.params, at="state/params").state, state.params)
        assert_same(checkpoints.restore(state.step, at="state/step").state, state.step)
        found = checkpoints.restore({"state": state, "totals": jnp.ones(2)}, step=1)
    assert_same(found.state["totals"], jnp.ones(2))
    assert found.extra == {"at": 1}
    for options, message in (({"step": 3}, r"wanted one of \[1, 2\]"), ({"at": "stat"}, "a part: state, totals")):
        with pytest.raises(jdl.InputError, match=message):
            checkpoints.restore(state, **options)


def test_reading_leaves_a_damaged_folder_as_it_is(tmp_path):
    write_steps(tmp_path, 1, 2)
    drop(tmp_path / "step_00000002" / "extra.json", random.Random(0))
    with pytest.warns(jdl.CheckpointWarning, match=r"extra.json is missing; the newest good one is of step 1"):
        assert jdl.Checkpoints(tmp_path).restore(LIKE).step == 1
    with pytest.raises(jdl.InputError, match=r"step_00000002 is damaged: extra.json is missing"):
        jdl.Checkpoints(tmp_path).restore(LIKE, step=2)
    assert jdl.Checkpoints(tmp_path).steps() == [1, 2]


# failures while saving


def test_a_save_that_fails_is_told_and_the_next_one_works(tmp_path, monkeypatch):
    write = files.write

    def full(place, *arguments):
        write(place, *arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_store(tmp_path, keep=1) as store:
        store.save(1, LIKE)
        store.wait()
        monkeypatch.setattr(files, "write", full)
        store.save(2, LIKE)
        with pytest.warns(jdl.CheckpointWarning) as caught:
            store.save(3, LIKE)
        with pytest.warns(jdl.CheckpointWarning, match="checkpoint of step 3 was not written"):
            store.wait()
        store.wait()  # told once
        assert {path.name for path in tmp_path.iterdir()} == {"lock", "step_00000001"}
        monkeypatch.undo()
        store.save(4, LIKE)
    assert jdl.Checkpoints(tmp_path).steps() == [4]
    assert re.search(
        r"step 2 was not written to .* MB free\): OSError: .*No space left on device; "
        r"the newest checkpoint is still that of step 1, and training goes on",
        str(caught[0].message),
    )
    assert caught[0].filename == __file__


def test_a_failure_of_the_last_save_is_told_on_leaving(tmp_path):
    folder = tmp_path / "a"
    with pytest.warns(jdl.CheckpointWarning, match="step 1 .*there is no checkpoint"), open_store(folder) as store:
        shutil.rmtree(folder)
        folder.touch()  # in the way of a new one
        store.save(1, LIKE)


@pytest.mark.parametrize("lost", ["a", "a/b", "a/b/lock"])
def test_a_folder_that_is_deleted_is_made_again_and_locked(tmp_path, lost: str):
    folder = tmp_path / "a" / "b"
    with open_store(folder, keep=1, best="loss") as store:
        store.save(1, LIKE, None, {"loss": 0.0})
        store.wait()
        if (tmp_path / lost).is_dir():
            shutil.rmtree(tmp_path / lost)
        else:
            (tmp_path / lost).unlink()
        for step, loss in ((2, 2.0), (3, 3.0)):
            store.save(step, LIKE, None, {"loss": loss})
        assert store.restore(LIKE).step == 3
        assert jdl.Checkpoints(folder).steps() == ([1, 3] if lost.endswith("lock") else [2, 3])
        with pytest.raises(jdl.InputError, match="is in use by this process"):
            open_store(folder)
    open_store(folder).close()


def test_a_deleted_folder_that_another_run_took_is_left_to_it(tmp_path):
    folder = tmp_path / "a"
    with pytest.warns(jdl.CheckpointWarning, match="step 1 was not written .*is in use"), open_store(folder) as store:
        shutil.rmtree(folder)
        with open_store(folder) as other:
            being_written = folder / ".unfinished_step_00000002"
            being_written.mkdir()
            store.save(1, LIKE)
            store._writer.join()
            being_written.rmdir()  # it still stands
            other.save(2, LIKE)
    assert jdl.Checkpoints(folder).steps() == [2]


def test_a_full_disk(tmp_path):
    """A file system of 300 kB: the second checkpoint does not fit, the first stays, a smaller third one goes."""
    if not hasattr(os, "geteuid") or os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount here")
    rng = np.random.default_rng(0)
    try:
        with open_store(disk) as store:
            store.save(1, {"w": np.full(100, 1.0)})
            store.save(2, {"w": rng.normal(size=100_000)})
            with pytest.warns(jdl.CheckpointWarning, match="step 2 was not written .* still that of step 1"):
                store.wait()
            assert {path.name for path in disk.iterdir()} == {"lock", "step_00000001"}
            assert (store.restore({"w": np.zeros(100)}).state["w"] == 1).all()
            store.save(3, {"w": np.full(100, 3.0)})
        with pytest.raises(OSError, match="No space left"), (disk / "others").open("wb", buffering=0) as file:
            while file.write(b"x" * 1000):
                pass
        with open_store(disk) as store:  # a run can go on from a disk that is full
            assert (store.restore({"w": np.zeros(100)}).state["w"] == 3).all()
    finally:
        subprocess.run(["umount", disk], check=True)


PROGRAM = """
import os, resource, sys, warnings
import numpy as np
import jdl
from jdl.checkpoints import files

small, large = {"w": np.ones(100)}, {"w": np.random.default_rng(0).normal(size=100_000)}
checkpoints = jdl.Checkpoints(sys.argv[1])
"""


def python(program: str, folder: Path, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM + program, str(folder)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def finish(process: subprocess.Popen, code: int = 0) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert err == "", "nothing but what was asked for is printed"
    return out


@pytest.mark.slow
def test_a_file_too_large_and_a_quiet_log(tmp_path):
    """A quota by another name; and orbax keeps its progress to itself even where everyone's is asked for."""
    process = python(
        """
import logging
logging.basicConfig(level=logging.INFO)
logging.getLogger("jax").setLevel(logging.WARNING)
with checkpoints.open() as store:
    store.save(1, small)
    store.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    store.save(2, large)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store.save(3, small)
    print(caught[0].message)
print(checkpoints.steps(), checkpoints.restore(small).state["w"].sum())
""",
        tmp_path,
    )
    told, result = finish(process).splitlines()
    assert "step 2 was not written" in told and "still that of step 1" in told
    assert result == "[1, 3] 100.0"


@pytest.mark.slow
def test_a_store_that_nobody_closes_says_what_was_lost(tmp_path):
    process = python("checkpoints.open().save(1, small)", tmp_path)
    _, err = process.communicate(timeout=120)
    assert jdl.Checkpoints(tmp_path).steps() == [1] or "step 1 was not written" in err


@pytest.mark.slow
def test_a_process_killed_while_it_saves_leaves_the_older_checkpoint(tmp_path):
    process = python(
        """
with checkpoints.open() as store:
    store.save(1, small)
    store.wait()
    sync = files.sync
    def stop(path):
        print("all written, nothing renamed", flush=True)
        sys.stdin.read()
    files.sync = stop
    store.save(2, small)
""",
        tmp_path,
        stdin=subprocess.PIPE,
    )
    assert process.stdout.readline() == "all written, nothing renamed\n"
    with pytest.raises(jdl.InputError, match=f"is in use by process {process.pid}"):
        open_store(tmp_path)
    assert (tmp_path / ".unfinished_step_00000002").is_dir()
    process.kill()
    process.communicate()
    like = {"w": np.zeros(100)}
    with open_store(tmp_path) as store:
        assert not (tmp_path / ".unfinished_step_00000002").exists()
        assert store.restore(like).step == 1
        store.save(2, like)
    assert jdl.Checkpoints(tmp_path).steps() == [1, 2]


def test_one_folder_is_open_once(tmp_path):
    with open_store(tmp_path), pytest.raises(jdl.InputError, match="is in use by this process"):
        open_store(tmp_path / ".." / tmp_path.name)
    open_store(tmp_path).close()
    with pytest.raises(RuntimeError), open_store(tmp_path):
        raise RuntimeError  # a run that fails gives the folder free
    open_store(tmp_path).close()


@pytest.mark.slow
def test_copying_the_folder_leaves_it_locked(tmp_path):
    with open_store(tmp_path / "a") as store:
        store.save(1, LIKE)
        store.wait()
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        (tmp_path / "a" / "lock").read_bytes()
        _, err = python("checkpoints.open()", tmp_path / "a").communicate(timeout=120)
        assert f"is in use by process {os.getpid()}" in err
    open_store(tmp_path / "b").close()


def test_a_fork_neither_holds_the_folder_nor_frees_it(tmp_path):
    """A worker outlives the run that is killed; and one that ends first does not end the lock."""
    program = """
import os, sys, time
from pathlib import Path
from jdl.checkpoints.locks import FolderLock
lock = FolderLock(Path(sys.argv[1]))
if not os.fork():
    assert not lock.held
    lock.release()
    os._exit(0)
os.wait()
if (worker := os.fork()):
    print(worker, lock.held, flush=True)
time.sleep(120)
"""
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path], cwd=ROOT, text=True, stdout=subprocess.PIPE)
    worker, held = process.stdout.readline().split()
    try:
        assert held == "True"
        with pytest.raises(jdl.InputError, match=f"is in use by process {process.pid}"):
            open_store(tmp_path)
        process.kill()
        process.wait()
        os.kill(int(worker), 0)  # it is alive
        open_store(tmp_path).close()
    finally:
        os.kill(int(worker), signal.SIGKILL)
        process.kill()
        process.communicate()


def test_a_closed_store_saves_nothing(tmp_path):
    store = open_store(tmp_path)
    store.close()
    with pytest.raises(jdl.InputError, match="is closed; open it again"):
        store.save(1, LIKE)


def test_what_killed_processes_leave_is_cleared_away(tmp_path):
    write_steps(tmp_path, 1, 2, 3)
    place = {name: tmp_path / name for name in (".unfinished_step_00000004", ".removed_step_00000000", "mine")}
    for path in place.values():
        (path / "inner").mkdir(parents=True)
    # killed between the two renames of a replacement, and after them
    (tmp_path / "step_00000003").rename(tmp_path / ".replaced_step_00000003")
    shutil.copytree(tmp_path / "step_00000002", tmp_path / ".replaced_step_00000002")
    with open_store(tmp_path) as store:
        assert {path.name for path in tmp_path.iterdir()} == {
            "lock", "mine", "step_00000001", "step_00000002", "step_00000003"
        }  # fmt: skip
        assert store.restore(LIKE).step == 3


# in the background


def test_saving_goes_on_in_the_background_and_leaves_no_thread(tmp_path, monkeypatch):
    go, write = threading.Event(), files.write
    monkeypatch.setattr(files, "write", lambda *arguments: (go.wait(60), write(*arguments)))
    before = set(threading.enumerate())
    with open_store(tmp_path) as store:
        store.save(1, LIKE)
        assert jdl.Checkpoints(tmp_path).steps() == []
        go.set()
        store.wait()
        assert jdl.Checkpoints(tmp_path).steps() == [1]
        store.save(2, LIKE)
    assert jdl.Checkpoints(tmp_path).steps() == [1, 2]
    deadline = time.monotonic() + 10
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == set()


def test_a_save_waits_for_the_one_before(tmp_path, monkeypatch):
    write, running = files.write, []

    def slow(place, *arguments):
        running.append(place.name)
        assert len(running) == 1
        time.sleep(0.05)
        write(place, *arguments)
        running.clear()

    monkeypatch.setattr(files, "write", slow)
    write_steps(tmp_path, 1, 2, 3)
    assert jdl.Checkpoints(tmp_path).steps() == [1, 2, 3]
