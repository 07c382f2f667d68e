"""Data larger than memory: the same batches as of arrays in memory, whoever reads them, and none lost on the way."""

from __future__ import annotations

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jdl
from jdl.check import InputError
from jdl.data import Batches, Dataset, Examples, Stream, as_stream, batches, steps_in_epochs
from jdl.data.stream_positions import decode, encode
from jdl.runs import padded_batches

N = 11
GENERATOR = np.random.default_rng(0)
INPUTS = GENERATOR.normal(size=(N, 4, 3)).astype(np.float32)
TARGETS = np.arange(N, dtype=np.int32)
MASK = (GENERATOR.random((N, 4)) < 0.7).astype(np.float32)


class Source:
    """Examples by their numbers."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __repr__(self):
        return "Source"  # Grain compares it with that in a checkpoint

    def __len__(self):
        return len(jax.tree.leaves(self.arrays)[0])

    def __getitem__(self, index):
        assert type(index) is int
        return jax.tree.map(lambda x: x[index], self.arrays)


def pieces(arrays, sizes):
    """The arrays in batches of these sizes, and the rest."""
    edges = [0, *itertools.accumulate(sizes), N]
    return [jax.tree.map(lambda x: x[a:b], arrays) for a, b in itertools.pairwise(edges) if a < b]  # noqa: B023


def taken(stream, batch_size, count, seed=0, **place):
    """The first batches, with the iterator closed."""
    iterator = stream.batches(batch_size, seed, **place)
    found = list(itertools.islice(iterator, count))
    iterator.close()
    return found


def assert_same(ours, theirs):
    theirs = list(theirs)
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            assert type(x) is np.ndarray
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            np.testing.assert_array_equal(x, y)


FORMS = {
    "pair": (INPUTS, TARGETS),
    "dict": {"inputs": INPUTS, "targets": TARGETS, "mask": MASK},
    "several inputs": {"inputs": (INPUTS, TARGETS), "targets": {"a": TARGETS, "b": MASK}},
    "inputs alone": INPUTS,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("batch_size", "start"), [(1, 0), (4, 0), (4, 7), (N, 2)])
def test_examples_come_as_those_in_memory(form, batch_size, start):
    found = taken(Examples(Source(FORMS[form])), batch_size, 8, seed=5, start=start)
    assert {position for _, position in found} == {None}
    expected = batches(FORMS[form], batch_size, 5, epochs=30, start=start)
    assert_same([batch for batch, _ in found], itertools.islice(expected, 8))


@given(st.integers(1, 30), st.data())
def test_each_example_once_an_epoch_from_any_step(n, data):
    batch_size = data.draw(st.integers(1, n))
    start = data.draw(st.integers(0, 20))
    stop = steps_in_epochs(n, batch_size, 4) + start
    stream = Examples(range(n), lambda number: {"inputs": number})
    rows = [batch["inputs"] for batch, _ in taken(stream, batch_size, start)]
    rows += [batch["inputs"] for batch, _ in taken(stream, batch_size, stop - start, start=start)]
    seen = np.concatenate(rows).tolist()
    for epoch in range(len(seen) // n):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


def sources_of(arrays):
    """The same data as every kind of stream."""
    yield Examples(Source(arrays))
    for sizes in ([], [3] * 3, [1, 5, 1], [N - 1]):
        yield Batches(lambda sizes=sizes: iter(pieces(arrays, sizes)))


@pytest.mark.parametrize("mask", [None, TARGETS % 2, MASK, MASK > 0], ids=["none", "[B]", "[B, T]", "bool"])
@pytest.mark.parametrize("batch_size", [1, 3, 4, N, 16])
def test_evaluation_takes_each_example_once_and_pads(batch_size, mask):
    arrays = {"inputs": INPUTS, "targets": TARGETS} | ({} if mask is None else {"mask": mask})
    for stream in sources_of(arrays):
        assert_same(list(stream.evaluation_batches(batch_size)), padded_batches(Dataset(arrays), batch_size))


def test_evaluation_of_streams_in_a_run():
    model = jdl.nn.Chain(jdl.nn.Flatten(), jdl.nn.Dense(N))
    objective = jdl.supervised(model, jdl.losses.cross_entropy, [jdl.metrics.accuracy])
    variables = model.init(jax.random.key(0), INPUTS[:2])
    expected = jdl.runs.evaluate(objective, variables, (INPUTS, TARGETS), 4)
    for stream in sources_of((INPUTS, TARGETS)):
        assert jdl.runs.evaluate(objective, variables, stream, 4) == expected


def test_first_is_a_batch_like_those_to_come():
    for stream in sources_of((INPUTS, TARGETS)):
        for batch_size in (2, 9):
            first, (batch, _) = stream.first(batch_size), taken(stream, batch_size, 1)[0]
            assert jax.eval_shape(lambda x: x, first) == jax.eval_shape(lambda x: x, batch)
            assert set(first["targets"].tolist()) <= set(TARGETS.tolist())
            assert_same([batch], [taken(stream, batch_size, 1)[0][0]])  # which it did not disturb


def test_examples_are_ours_to_change():
    stream = Examples(Source((INPUTS, TARGETS)))
    (batch, _), kept = taken(stream, 4, 1)[0], INPUTS.copy()
    batch["inputs"][:] = 0
    np.testing.assert_array_equal(INPUTS, kept)


class HuggingFace:
    """Rows as a `datasets.Dataset` gives them: of Python's own values, by one number or by many."""

    column_names = ("image", "label", "tokens")

    def __init__(self, images):
        self.images, self.calls = images, 0

    def __len__(self):
        return N

    def __getitem__(self, key):
        if isinstance(key, str):
            raise AssertionError("no column is needed")
        return {"image": self.images[key], "label": int(key), "tokens": [key, 2**20 + key], "score": key / 3}

    def __getitems__(self, keys):
        self.calls += 1
        return [self[key] for key in keys]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_rows_of_hugging_face(channels):
    pillow = pytest.importorskip("PIL.Image")
    pixels = GENERATOR.integers(0, 256, (N, 5, 6, channels)).astype(np.uint8)
    rows = HuggingFace([pillow.fromarray(x[..., 0] if channels == 1 else x) for x in pixels])
    stream = as_stream(rows)
    assert isinstance(stream, Examples)
    assert (stream.examples, stream.batch_size, stream.exact) == (N, None, True)
    label, tokens = np.arange(N, dtype=np.int32), np.stack([np.arange(N), 2**20 + np.arange(N)], axis=1)
    score = (np.arange(N) / 3).astype(np.float32)
    arrays = {"image": pixels, "label": label, "tokens": tokens.astype(np.int32), "score": score}
    assert_same([batch for batch, _ in taken(stream, 4, 5)], batches(arrays, 4, epochs=2))
    assert rows.calls == 5
    renamed = Examples(rows, lambda row: (row["image"], row["label"]))
    assert_same([batch for batch, _ in taken(renamed, 4, 5)], batches((pixels, label), 4, epochs=2))


def raises(example):
    if example == 7:
        raise KeyError("no such file")
    return {"inputs": example}


def ragged(example):
    return {"inputs": np.zeros(3 + (example == 7))}


class Short(list):
    def __len__(self):
        return 9


def test_errors_name_the_example():
    nan, wide, far = np.zeros((9, 2)), np.zeros((9, 2), np.int64), np.zeros(9, np.uint64)
    nan[7, 1], wide[7, 0], far[7] = np.nan, 2**31, 2**32
    table = [
        (raises, range(9), r"in example 7: load raised KeyError: 'no such file' \(.*test_streams.py, line \d+\)"),
        (ragged, range(9), r"example \d is .* and example \d is .*; wanted the same names and shapes in all: pad"),
        (None, nan, "in example 7: inputs got .* with 1 value that is NaN"),
        (None, wide, "in example 7: inputs has 0 to 2147483648, which int32 does not hold"),
        (None, far, "in example 7: inputs has 4294967296 to 4294967296, which uint32 does not hold"),
        (lambda x: {"inputs": "text"}, range(9), "in example .: inputs got 'text', wanted numbers; encode it in load="),
        (lambda x: {"inputs": None}, range(9), "in example .: inputs got None, wanted numbers"),
        (lambda x: [1, 2], range(9), r"in example .: got list .*, wanted a dict of arrays or \(inputs, targets\)"),
        (lambda x: {"inputs": [[1], [1, 2]]}, range(9), "in example .: inputs cannot be made an array"),
        (None, Short([{"inputs": 1}] * 3), r"in example \d: reading it raised IndexError: list index"),
    ]
    for load, source, message in table:
        with pytest.raises(InputError, match=message):
            taken(Examples(source, load), 9, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Examples(iter([1])), "source got list_iterator, wanted a length and source"),
        (lambda: Examples([]), "has 0 examples"),
        (lambda: Examples(range(2**40)), "has 1099511627776 examples, wanted 1 to"),
        (lambda: Examples([1], load=3), "load got 3, wanted a function"),
        (lambda: Examples([1], workers=-1), "workers got -1, wanted at least 0"),
        (lambda: Examples([1], workers=1.5), "workers got 1.5, wanted a whole number"),
        (lambda: Examples([1], prefetch=0), "prefetch got 0, wanted at least 1"),
        (lambda: Examples([1, 2]).batches(3, 0), "batch_size got 3, wanted at most the 2 examples"),
        (lambda: Examples([1, 2]).batches(1, 0, start=-1), "start got -1"),
        (lambda: next(Examples([1, 2]).evaluation_batches(0)), "batch_size got 0"),
        (lambda: Batches(iter([1])), "list_iterator, an iterator that is used up after one pass.*give make in place"),
        (lambda: as_stream(x for x in [1]), "generator, an iterator that is used up"),
        (lambda: Batches(3), "iterable got 3, wanted batches"),
        (lambda: Batches([1], examples=0), "examples got 0, wanted at least 1"),
        (lambda: next(Batches([]).batches(2, 0)), "the iterable gave no batches"),
        (lambda: next(Batches([]).evaluation_batches(2)), "the iterable gave no batches"),
        (lambda: next(Batches(lambda: 3).batches(2, 0)), "the function of Batches gave 3, wanted something to iterate"),
        (lambda: as_stream(3), "data got int 3"),
        (lambda: as_stream("digits"), "use jdl.data.load"),
        (lambda: as_stream([INPUTS, TARGETS]), "use a tuple of two arrays"),
        (lambda: as_stream(Source), "data got type"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make()


class Iterable:
    def __iter__(self):
        return iter(pieces((INPUTS, TARGETS), [4, 4]))


class InheritsIndexing(Iterable):
    """As PyTorch's IterableDataset, which inherits an indexing that only raises."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise NotImplementedError


InheritsIndexing.__name__ = "IterableDataset"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (Dataset({"inputs": INPUTS}), Dataset),
        ((INPUTS, TARGETS), Dataset),
        ({"inputs": INPUTS}, Dataset),
        (INPUTS, Dataset),
        (jnp.asarray(INPUTS), Dataset),
        (Source((INPUTS, TARGETS)), Examples),
        ([{"inputs": 1}], Examples),
        ([(INPUTS, 1)], Examples),
        (Iterable(), Batches),
        (InheritsIndexing(), Batches),
        (lambda: iter([]), Batches),
        (Examples([1]), Examples),
    ],
)
def test_kinds_of_data(data, kind):
    assert type(as_stream(data)) is kind


def test_image_folder(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    for number in range(6):
        (tmp_path / str(number % 2)).mkdir(exist_ok=True)
        pillow.fromarray(np.full((4, 4, 3), number, np.uint8)).save(tmp_path / str(number % 2) / f"{number}.png")
    folder = jdl.data.ImageFolder(tmp_path)
    assert_same([batch for batch, _ in taken(as_stream(folder), 4, 3)], batches(folder.load(), 4, epochs=2))


# --- batches that somebody else makes


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 12))
def test_unequal_batches_become_full_ones(sizes, batch_size):
    n = sum(sizes)
    edges = [0, *itertools.accumulate(sizes)]
    rows = [np.arange(a, b, dtype=np.int32) for a, b in itertools.pairwise(edges)]
    values = [(own[:, None].astype(np.float32), own) for own in rows]
    stream = Batches(values)
    assert not stream.exact
    assert stream.batch_size == sizes[0]
    if batch_size > n:
        with pytest.raises(InputError, match=f"at most the {n} examples of a pass; lower it to {n}"):
            taken(stream, batch_size, 1)
        return
    endless = np.tile(np.arange(n), 20)
    for step, (batch, position) in enumerate(taken(stream, batch_size, 10)):
        expected = endless[step * batch_size : (step + 1) * batch_size]
        assert position is None
        assert batch["inputs"].tolist() == expected[:, None].tolist()
        assert batch["targets"].tolist() == expected.tolist()
        assert (batch["inputs"].dtype, batch["targets"].dtype) == (np.float32, np.int32)


class Stateful:
    """An iterator over batches of unequal sizes, in another order in each pass, that can be set to any place."""

    def __init__(self, owner, wrap):
        self.owner, self.wrap, self.at, self.closed = owner, wrap, 0, False

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == len(self.owner.sizes):
            raise StopIteration
        begin, size = sum(self.owner.sizes[: self.at]), self.owner.sizes[self.at]
        self.at += 1
        return {"inputs": np.arange(begin, begin + size)}

    def get_state(self):
        return self.wrap(self.at)

    def set_state(self, state):
        assert type(state) is type(self.wrap(0))
        self.at = {dict: lambda: state["at"], bytes: lambda: int(state), tuple: lambda: int(state[0][0])}[type(state)]()

    def close(self):
        self.owner.closed += 1


class StatefulData:
    closed = 0

    def __init__(self, sizes, wrap=lambda at: {"at": at, 3: "three"}):
        self.sizes, self.wrap = sizes, wrap

    def __iter__(self):
        return Stateful(self, self.wrap)


WRAPS = [lambda at: {"at": at}, lambda at: str(at).encode(), lambda at: (np.array([at]), None)]


@pytest.mark.parametrize("wrap", WRAPS, ids=["dict", "bytes", "tuple"])
@pytest.mark.parametrize("batch_size", [1, 3, 5, 7, 14])
def test_iterators_with_a_state_go_on_from_any_step(batch_size, wrap):
    data = StatefulData([3, 1, 7, 3], wrap)
    stream = Batches(data, examples=14)
    assert stream.exact
    found = taken(stream, batch_size, 12)
    assert np.concatenate([batch["inputs"] for batch, _ in found]).tolist() == (list(range(14)) * 12)[: 12 * batch_size]
    for step in range(1, 12):
        position = json.loads(json.dumps(found[step - 1][1]))
        again = taken(Batches(data, examples=14), batch_size, 12 - step, start=step, position=position)
        assert_same([batch for batch, _ in again], [batch for batch, _ in found[step:]])
        assert [position for _, position in again] == [position for _, position in found[step:]]


def test_others_begin_a_new_pass():
    stream = Batches(Iterable())
    assert not stream.exact
    again = taken(stream, 3, 2, start=7, position=None)
    assert_same([batch for batch, _ in again], [batch for batch, _ in taken(stream, 3, 2)])
    position = taken(Batches(StatefulData([3, 1])), 2, 1)[0][1]
    with pytest.raises(InputError, match="no set_state"):
        taken(stream, 3, 1, position=position)


def test_what_the_iterable_runs_is_closed():
    data = StatefulData([3, 1, 7, 3])
    taken(Batches(data), 5, 2)
    assert data.closed == 1
    taken(Batches(data), 14, 3)
    assert data.closed == 4
    left = []

    def generate():
        try:
            yield from pieces((INPUTS, TARGETS), [2, 2])
        finally:
            left.append(True)

    taken(Batches(generate), 3, 1)
    list(Batches(generate).evaluation_batches(3))
    Batches(generate).first(3)
    assert len(left) == 4  # the first batch, for its size, then three more rows


def test_memory_that_is_filled_again():
    def generate():
        memory = np.zeros((3, 1), np.float32)
        for number in range(4):
            memory[:] = number
            yield {"inputs": memory}

    found = [batch["inputs"][:, 0].tolist() for batch, _ in taken(Batches(generate), 2, 6)]
    assert found == [[0, 0], [0, 1], [1, 1], [2, 2], [2, 3], [3, 3]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([{"inputs": INPUTS}, {"inputs": INPUTS[:, :2]}], r"batch 2 of pass 1 has inputs float32\[B, 2, 3\], wanted"),
        ([{"inputs": INPUTS}, {"x": INPUTS}], "batch 2 of pass 1 has x"),
        ([{"inputs": INPUTS}, {"inputs": INPUTS.astype(np.float16)}], "batch 2 .* float16"),
        ([{"inputs": INPUTS}, {"inputs": np.full((N, 4, 3), np.nan)}], "in batch 2 of pass 1: inputs .* NaN"),
        (
            [(INPUTS, TARGETS), (INPUTS, TARGETS[:3])],
            r"in batch 2 of .*\(11 in inputs, 3 in targets\).* for all$",
        ),
        ([(INPUTS[0], TARGETS[0])], r"in batch 1 of pass 1: .* single examples\? Make batches of them: .batch\(32\)"),
        ([(INPUTS[0], 3)], "single examples"),
        ([{"inputs": ["a", "b"]}], "in batch 1 of pass 1: inputs got .* wanted numbers"),
        ([{"inputs": np.zeros((0, 3))}], "in batch 1 of pass 1: .* empty"),
    ],
)
def test_errors_name_the_batch(values, message):
    with pytest.raises(InputError, match=message):
        taken(Batches(values), N, 2)


def test_passes_that_do_not_hold_what_they_promise():
    once = iter(pieces((INPUTS, TARGETS), [4, 4]))
    with pytest.raises(InputError, match="pass 2 gave no batches, so the iterable is used up after one pass"):
        taken(Batches(lambda: once), 4, 4)
    for examples in (10, 12):
        with pytest.raises(InputError, match=f"pass 1 gave 11 examples, wanted the {examples}.*examples=11"):
            taken(Batches(Iterable(), examples=examples), 4, 4)
        with pytest.raises(InputError, match="examples=11"):
            list(Batches(Iterable(), examples=examples).evaluation_batches(4))


def test_a_users_error_stays_his_own():
    def generate():
        yield INPUTS, TARGETS
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        taken(Batches(generate), 4, 4)


def test_a_stream_of_ones_own():
    class Ones(Stream):
        def batches(self, batch_size, seed, start=0, position=None):
            for step in itertools.count(start):
                yield {"inputs": np.full((batch_size, 1), step)}, step + 1

    stream = Ones()
    assert as_stream(stream) is stream
    assert stream.first(3)["inputs"].tolist() == [[0]] * 3
    with pytest.raises(NotImplementedError, match="Ones has no evaluation_batches"):
        stream.evaluation_batches(3)


@pytest.mark.parametrize(
    "state",
    [
        None,
        3,
        2.5,
        "text",
        True,
        b"\x00\xff",
        [1, [2]],
        (1, (b"x",)),
        {1: {"a": (None,)}},
        {"bytes": "a"},
        {"dtype": 1},
    ],
)
def test_states_travel_as_json(state):
    back = decode(json.loads(json.dumps(encode(state))))
    assert (back, type(back)) == (state, type(state))


def test_states_of_arrays_travel_and_others_do_not():
    state = np.random.MT19937(3).state
    back = decode(json.loads(json.dumps(encode(state))))
    np.testing.assert_array_equal(back["state"]["key"], state["state"]["key"])
    assert back["state"]["key"].dtype == state["state"]["key"].dtype
    with pytest.raises(InputError, match=r"get_state\(\) gave set"):
        encode({"a": {1, 2}})


# --- other people's libraries


def dataset_of_torch(arrays):
    torch = pytest.importorskip("torch")
    return torch.utils.data.TensorDataset(*map(torch.from_numpy, arrays))


def test_dataset_of_torch():
    stream = as_stream(dataset_of_torch((INPUTS, TARGETS)))
    assert isinstance(stream, Examples)
    assert_same([batch for batch, _ in taken(stream, 4, 5)], batches((INPUTS, TARGETS), 4, epochs=2))


@pytest.mark.parametrize("drop_last", [False, True])
def test_loader_of_torch(drop_last):
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(dataset_of_torch((INPUTS, TARGETS)), batch_size=4, drop_last=drop_last)
    stream = as_stream(loader)
    kept = 8 if drop_last else N
    assert isinstance(stream, Batches)
    assert (stream.examples, stream.batch_size, stream.exact) == (kept, 4, False)
    endless = np.concatenate([TARGETS[:kept]] * 4)
    for step, (batch, _) in enumerate(taken(stream, 3, 8)):
        rows = endless[3 * step : 3 * step + 3]
        assert_same([batch], [{"inputs": INPUTS[rows], "targets": rows}])
    expected = padded_batches(Dataset.of((INPUTS[:kept], TARGETS[:kept])), 4)
    assert_same(list(stream.evaluation_batches(4)), expected)


def test_loaders_of_torch_that_know_no_length():
    torch = pytest.importorskip("torch")

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter({"inputs": x, "targets": y} for x, y in zip(INPUTS, TARGETS, strict=True))

        def __len__(self):
            return N

    stream = as_stream(torch.utils.data.DataLoader(Rows(), batch_size=4))
    assert (stream.examples, stream.batch_size) == (None, 4)
    assert_same(list(stream.evaluation_batches(5)), padded_batches(Dataset.of((INPUTS, TARGETS)), 5))
    with pytest.raises(InputError, match="single examples"):
        taken(as_stream(Rows()), 4, 1)
    batch_sampler = torch.utils.data.BatchSampler(range(3), 2, drop_last=False)
    loader = torch.utils.data.DataLoader(dataset_of_torch((INPUTS, TARGETS)), batch_sampler=batch_sampler)
    assert as_stream(loader).examples is None


def grain_pipeline(workers=0):
    grain = pytest.importorskip("grain")
    pytest.importorskip("absl.flags").FLAGS.mark_as_parsed()
    source = grain.MapDataset.source(Source({"inputs": INPUTS, "targets": TARGETS})).shuffle(seed=3)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    return source.to_iter_dataset().batch(4).mp_prefetch(options)


def assert_goes_on(make, batch_size, count, steps):
    """The batches hold all examples in each epoch, and go on from these steps as if never stopped."""
    found = taken(Batches(make()), batch_size, count)
    seen = np.concatenate([batch["targets"] for batch, _ in found])
    for epoch in range(len(seen) // N):
        assert sorted(seen[epoch * N : (epoch + 1) * N]) == list(range(N))
    for batch, _ in found:
        np.testing.assert_array_equal(batch["inputs"], INPUTS[batch["targets"]])
    for step in steps:
        position = json.loads(json.dumps(found[step - 1][1]))
        again = taken(Batches(make()), batch_size, count - step, start=step, position=position)
        assert_same([batch for batch, _ in again], [batch for batch, _ in found[step:]])


@pytest.mark.slow
def test_datasets_of_grain():
    grain = pytest.importorskip("grain")
    stream = as_stream(grain.MapDataset.source(Source({"inputs": INPUTS, "targets": TARGETS})))
    assert isinstance(stream, Examples)
    assert_same([batch for batch, _ in taken(stream, 4, 5)], batches((INPUTS, TARGETS), 4, epochs=2))
    stream = as_stream(grain_pipeline())
    assert isinstance(stream, Batches)
    assert (stream.exact, stream.batch_size) == (True, 4)
    for batch_size in (3, 4, 8):
        assert_goes_on(grain_pipeline, batch_size, 9, range(1, 9))


def test_loader_of_grain():
    grain = pytest.importorskip("grain")

    def make():
        sampler = grain.samplers.IndexSampler(N, shuffle=True, seed=1, num_epochs=1)
        source = Source({"inputs": INPUTS, "targets": TARGETS})
        return grain.DataLoader(data_source=source, sampler=sampler, operations=[grain.transforms.Batch(4)])

    assert as_stream(make()).exact
    assert_goes_on(make, 3, 9, range(1, 9))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_grain_with_workers_loses_nothing(workers):
    assert_goes_on(lambda: grain_pipeline(workers), 3, 6, (2,))
