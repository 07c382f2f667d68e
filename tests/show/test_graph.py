"""The computation graph against the program it is drawn from, as a value, as DOT and as a picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import combinations, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Literal
from jax.interpreters.partial_eval import dce_jaxpr

import jdl
from jdl import nn
from jdl.check import InputError
from jdl.show import Graph, graph, saving


def like(*shape: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


class TwoInputs(nn.Layer):
    """The handout's z = x1·w1 + x2·w2 + b, a = sigmoid(z)."""

    def params(self, x1, x2):
        return {name: nn.Param((), nn.init.zeros()) for name in ("w1", "w2", "b")}

    def forward(self, net, x1, x2):
        return nn.sigmoid(x1 * net.w1 + x2 * net.w2 + net.b)


class Shared(nn.Layer):
    """One layer twice, and a table that both embeds and scores."""

    def forward(self, net, x):
        embed, hidden = net.child("embed", nn.Embedding(20, 16)), net.child("hidden", nn.Dense(16))
        return hidden(hidden(embed(x))) @ embed.table.T


class Block(nn.Layer):
    """A Transformer block's shape, with single-head attention of its own."""

    rate: float = 0.1

    def forward(self, net, x):
        width, drop = x.shape[-1], net.child("drop", nn.Dropout(self.rate))
        h = net.child("norm_1", nn.LayerNorm())(x)
        q, k, v = (net.child(name, nn.Dense(width))(h) for name in ("query", "key_", "value"))
        weights = nn.softmax(jnp.einsum("btd,bsd->bts", q, k) / width**0.5)
        x = x + drop(net.child("out", nn.Dense(width))(weights @ v))
        mlp = net.child("mlp", nn.Chain(nn.Dense(4 * width), nn.gelu, nn.Dense(width)))
        return x + drop(mlp(net.child("norm_2", nn.LayerNorm())(x)))


class Tangle(nn.Layer):
    """Sums at random of what came before, some of them in layers."""

    seed: int

    def forward(self, net, x):
        rng = np.random.default_rng(self.seed)
        values = [x, jnp.tanh(x)]
        for step in range(25):
            a, b = (values[max(0, len(values) - 1 - int(back))] for back in rng.integers(0, 9, 2))
            if rng.random() < 0.4:
                a = net.child(f"layer_{step}", nn.Residual(nn.Dense(3)) if rng.random() < 0.5 else nn.relu)(a)
            values.append(a * b if rng.random() < 0.5 else a - b)
        return sum(values[-4:], start=values[0])


class Branching(nn.Layer):
    """A conditional, a loop and a scan."""

    def forward(self, net, x):
        big, small = net.child("big", nn.Dense(3)), net.child("small", nn.tanh)
        x = jax.lax.cond(x[0, 0] > 0, big, small, x)
        x = jax.lax.while_loop(lambda x: x.sum() < 10, lambda x: 2 * x, x)
        return jax.lax.fori_loop(0, 3, lambda i, x: net.child("step", nn.Dense(3))(x) + 1, x)


MLP = nn.Chain(nn.Flatten(), nn.Dense(12), nn.relu, nn.Dropout(0.5), nn.Dense(10))
CNN = nn.Chain(
    nn.Conv(8, 3),
    nn.BatchNorm(),
    nn.relu,
    nn.Residual(nn.Chain(nn.Conv(8, 3), nn.BatchNorm(), nn.relu, nn.Conv(8, 3))),
    nn.MaxPool(2),
    nn.Flatten(),
    nn.Dense(10),
)
IMAGES, ROWS = like(2, 8, 8, 1), like(4, 3)
MODELS = {
    "neuron": (TwoInputs(), (like(4), like(4))),
    "one layer": (nn.Dense(5), (ROWS,)),
    "mlp": (MLP, (IMAGES,)),
    "cnn": (CNN, (IMAGES,)),
    "shared": (Shared(), (like(2, 5, dtype=jnp.int32),)),
    "block": (Block(), (like(2, 5, 8),)),
    "repeated": (nn.Repeat(Block(), 12), (like(2, 5, 8),)),
    "ensemble": (nn.Ensemble(nn.Remat(nn.Chain(nn.Dense(4), jnp.tanh)), 3), (ROWS,)),
    "parallel": (
        nn.Chain(nn.Parallel(nn.Dense(4), nn.tanh, skip=nn.linear), lambda a, b, c: (a.sum(), b + c)),
        (ROWS,),
    ),
    "branching": (Branching(), (ROWS,)),
    **{f"tangle {seed}": (Tangle(seed), (ROWS,)) for seed in range(4)},
}
CASES = [(name, detail, train) for name in MODELS for detail in ("layers", "operations") for train in (False, True)]


@pytest.fixture(params=CASES, ids=lambda case: " ".join(map(str, case)))
def drawn(request) -> Graph:
    name, detail, train = request.param
    model, inputs = MODELS[name]
    return graph(model, *inputs, detail=detail, train=train)


def named_edges(found: Graph) -> list[tuple[str, str]]:
    return [(found.nodes[edge.source].name, found.nodes[edge.target].name) for edge in found.edges]


def node(found: Graph, path: str) -> int:
    """The only layer at a path."""
    [index] = [i for i, node in enumerate(found.nodes) if node.kind == "layer" and node.path == path]
    return index


# What the graph says


def test_the_handouts_neuron():
    found = graph(TwoInputs(), like(4), like(4), detail="operations")
    assert [node.name for node in found.nodes if node.kind == "operation"] == ["mul", "mul", "add", "add", "logistic"]
    assert sorted(named_edges(found)) == sorted(
        [
            *(("x1", "mul"), ("w1", "mul"), ("x2", "mul"), ("w2", "mul"), ("mul", "add"), ("mul", "add")),
            *(("add", "add"), ("b", "add"), ("add", "logistic"), ("logistic", "output")),
        ]
    )
    assert [group.name for group in found.groups] == ["TwoInputs()"]
    assert {edge.shape for edge in found.edges} == {"[4]", "scalar"}


def edges_of_program(jaxpr, names: list[str]) -> Counter[tuple[str, str]]:
    """Producer and consumer of every value, by primitive, in a program without loops."""
    edges: Counter[tuple[str, str]] = Counter()

    def walk(jaxpr, producers: list[str]) -> list[str]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], producers, strict=True))
        for eqn in jaxpr.eqns:
            read = [None if isinstance(atom, Literal) else known[atom] for atom in eqn.invars]
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            if inner is not None:
                results = walk(getattr(inner, "jaxpr", inner), read)
            else:
                edges.update((producer, eqn.primitive.name) for producer in read if producer is not None)
                results = [eqn.primitive.name] * len(eqn.outvars)
            known.update(zip(eqn.outvars, results, strict=True))
        return [known[atom] for atom in jaxpr.outvars]

    edges.update((producer, "output") for producer in walk(jaxpr, names))
    return edges


@pytest.mark.parametrize("name", ["neuron", "one layer", "mlp", "cnn", "shared", "block", "tangle 0", "tangle 1"])
def test_edges_are_those_of_the_program(name):
    model, inputs = MODELS[name]
    variables = jax.eval_shape(lambda key: model.init(key, *inputs), jax.random.key(0))
    program = jax.make_jaxpr(model)(variables, *inputs)
    arrays = ["array"] * (len(jax.tree.leaves(variables)) + len(inputs))
    found = graph(model, *inputs, detail="operations")
    kinds = {"parameter": "array", "state": "array", "input": "array", "output": "output"}
    labels = [kinds.get(node.kind, node.name) for node in found.nodes]
    drawn_edges = Counter((labels[edge.source], labels[edge.target]) for edge in found.edges)
    live, _ = dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars), instantiate=True)
    assert drawn_edges == edges_of_program(live, arrays)


def test_layers_follow_each_other():
    found = graph(MLP, IMAGES)
    assert named_edges(found) == [
        ("input", "Flatten()"),
        ("Flatten()", "Dense(12)"),
        ("Dense(12)", "relu"),
        ("relu", "Dense(10)"),
        ("Dense(10)", "output"),
    ]
    assert [edge.shape for edge in found.edges] == ["[2, 8, 8, 1]", "[2, 64]", "[2, 12]", "[2, 12]", "[2, 10]"]
    assert [node.note for node in found.nodes if node.kind == "layer"] == ["", "780 parameters", "", "130 parameters"]
    assert found.idle == ("3: Dropout(0.5)",)
    assert "Computes nothing here: 3:" in found.svg and "Dropout(0.5)" in found.svg


def test_a_training_pass_shows_what_only_it_computes():
    found = graph(MLP, IMAGES, train=True)
    assert found.idle == ()
    assert ("relu", "Dropout(0.5)") in named_edges(found) and ("key", "Dropout(0.5)") in named_edges(found)
    assert "key" not in [node.name for node in graph(CNN, IMAGES, train=True).nodes]


def test_a_residual_connection_goes_around_its_layer():
    found = graph(CNN, IMAGES)
    [total] = [i for i, node in enumerate(found.nodes) if node.name == "add"]
    into = sorted(edge.source for edge in found.edges if edge.target == total)
    assert into == [node(found, "2"), node(found, "3/3")]
    assert sorted(edge.target for edge in found.edges if edge.source == node(found, "2")) == [node(found, "3/0"), total]
    groups = [found.groups[index].name for index in (found.nodes[total].group, found.nodes[node(found, "3/3")].group)]
    assert groups == ["Residual", "Chain"]


def test_a_shared_layer_is_drawn_at_each_call_with_one_set_of_parameters():
    tokens = like(2, 5, dtype=jnp.int32)
    layers = graph(Shared(), tokens)
    twice = [i for i, node in enumerate(layers.nodes) if node.path == "hidden"]
    assert len(twice) == 2 and (twice[0], twice[1]) in {(edge.source, edge.target) for edge in layers.edges}
    assert {layers.nodes[i].note for i in twice} == {"272 parameters · shared"}
    assert [target for source, target in named_edges(layers) if source == "embed/table"] == ["dot_general"]

    found = graph(Shared(), tokens, detail="operations")
    for name, readers in [("hidden/kernel", 2), ("hidden/bias", 2), ("embed/table", 2)]:
        [array] = [i for i, node in enumerate(found.nodes) if node.path == name]
        targets = {found.nodes[edge.target].group for edge in found.edges if edge.source == array}
        assert len(targets) == readers and found.groups[found.nodes[array].group].name == "Shared"
    assert [group.path for group in found.groups].count("hidden") == 2


def test_a_repeated_layer_is_drawn_once_in_its_loop():
    found = graph(nn.Repeat(nn.Residual(nn.Dense(3)), 7), ROWS)
    assert [group.name for group in found.groups] == ["Repeat(7)", "scan × 7", "Residual"]
    assert named_edges(found) == [("input", "Dense(3)"), ("input", "add"), ("Dense(3)", "add"), ("add", "output")]
    kernel = next(n for n in graph(nn.Repeat(nn.Dense(3), 7), ROWS, detail="operations").nodes if n.name == "kernel")
    assert kernel.outputs == ("[7, 3, 3]",)


def test_loops_and_conditions_of_a_users_own():
    found = graph(Branching(), ROWS, detail="operations")
    names = [group.name for group in found.groups]
    assert {"branch 0", "branch 1", "while", "scan × 3"} <= set(names)
    inside = {found.groups[group.parent].name for group in found.groups if group.path in ("big", "small", "step")}
    assert inside == {"branch 0", "branch 1", "scan × 3"}
    [join] = [i for i, node in enumerate(found.nodes) if node.name == "cond"]
    assert sum(edge.target == join for edge in found.edges) == 3  # which branch, and what each gives


def test_inputs_and_outputs_have_names():
    class Named(nn.Layer):
        def forward(self, net, x, *rest, mask):
            return {"sum": x + rest[0]["a"], "rest": (rest[1] * mask, 2.0)}

    found = graph(Named(), ROWS, {"a": ROWS}, ROWS, mask=like(3))
    assert [node.name for node in found.nodes if node.kind == "input"] == ["x", "input 1/a", "input 2", "mask"]
    outputs = [node.name for node in found.nodes if node.kind == "output"]
    assert outputs == ["output/rest/0", "output/rest/1", "output/sum"]


def test_what_nothing_reads_is_left_out():
    class Wasteful(nn.Layer):
        def forward(self, net, x):
            net.child("unused", nn.Dense(100))(x)
            return net.child("used", nn.Dense(2))(x)

    found = graph(Wasteful(), ROWS)
    assert [node.path for node in found.nodes if node.kind == "layer"] == ["used"]
    assert found.idle == ("unused: Dense(100)",)


def test_data_flows_forward_and_groups_hold_what_is_in_them(drawn: Graph):
    assert all(edge.source < edge.target for edge in drawn.edges)
    assert {node.group for node in drawn.nodes} <= {None, *range(len(drawn.groups))}
    assert all(group.parent is None or group.parent < i for i, group in enumerate(drawn.groups))
    for edge in drawn.edges:
        assert 0 <= edge.value < len(drawn.nodes[edge.source].outputs)
    read = {edge.source for edge in drawn.edges}
    assert all(i in read or drawn.nodes[i].kind in ("output", "input") for i in range(len(drawn.nodes)))


# As DOT

TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|(->)|([{}\[\];=,])|([A-Za-z_][A-Za-z_0-9]*))')


def parse_dot(source: str) -> tuple[dict[str, tuple[tuple[str, ...], str]], list[tuple[str, str, str]], dict[str, str]]:
    """Nodes with the clusters around them and their labels, edges with labels, and labels of clusters; asserts the
    grammar.
    """
    tokens, place = [], 0
    while place < len(source.rstrip()):
        match = TOKEN.match(source, place)
        assert match, f"no DOT token at {source[place : place + 30]!r}"
        tokens.append(match.group().strip())
        place = match.end()
    nodes: dict[str, tuple[tuple[str, ...], str]] = {}
    edges, titles = [], {}

    def attributes() -> dict[str, str]:
        found = {}
        assert tokens.pop(0) == "["
        while tokens[0] != "]":
            name, equals = tokens.pop(0), tokens.pop(0)
            assert equals == "=" and name.isidentifier()
            found[name] = tokens.pop(0)
            if tokens[0] == ",":
                tokens.pop(0)
        tokens.pop(0)
        return found

    def statements(around: tuple[str, ...]) -> None:
        assert tokens.pop(0) == "{"
        while tokens[0] != "}":
            first = tokens.pop(0)
            if first == "subgraph":
                statements((*around, tokens.pop(0)))
                continue
            if tokens[0] == "=":
                tokens.pop(0)
                titles[around[-1]] = tokens.pop(0)
            elif tokens[0] == "->":
                tokens.pop(0)
                edges.append((first, tokens.pop(0), attributes()["label"]))
            elif first in ("node", "edge"):
                attributes()
            else:
                assert first not in nodes, f"{first} is declared twice"
                nodes[first] = around, attributes()["label"]
            assert tokens.pop(0) == ";"
        tokens.pop(0)

    assert [tokens.pop(0), tokens.pop(0)] == ["digraph", "model"]
    statements(())
    assert tokens == []
    return nodes, edges, titles


def written(*lines: str) -> str:
    """Lines as DOT quotes them."""
    return '"' + "\\n".join(re.sub(r'(["\\])', r"\\\1", line) for line in lines if line) + '"'


def test_dot_says_the_same(drawn: Graph):
    nodes, edges, titles = parse_dot(drawn.dot)
    assert sorted(nodes, key=lambda name: int(name[1:])) == [f"n{i}" for i in range(len(drawn.nodes))]
    assert edges == [(f"n{e.source}", f"n{e.target}", f'"{e.shape}"') for e in drawn.edges]
    assert len(titles) == len(drawn.groups)
    for i, node in enumerate(drawn.nodes):
        around, group = [], node.group
        while group is not None:
            around.insert(0, f"cluster_{group}")
            group = drawn.groups[group].parent
        assert nodes[f"n{i}"] == (tuple(around), written(node.name, node.note))


def test_dot_and_svg_escape_what_they_write():
    class Odd(nn.Layer):
        text: str

        def forward(self, net, x):
            return x + 1

    found = graph(nn.Chain(Odd('a "quoted" <b> & \\ back\nline'), nn.relu), ROWS)
    assert parse_dot(found.dot)[0]["n1"][1] == written(found.nodes[1].name) != f'"{found.nodes[1].name}"'
    assert ET.fromstring(found.svg) is not None


# As a picture

SVG = "{http://www.w3.org/2000/svg}"


class Rectangle:
    def __init__(self, element: ET.Element):
        self.x, self.y, self.width, self.height = (float(element.get(k, "")) for k in ("x", "y", "width", "height"))

    def holds(self, other: Rectangle) -> bool:
        return self.near(other.x, other.y) and self.near(other.x + other.width, other.y + other.height)

    def near(self, x: float, y: float, by: float = 0.2) -> bool:
        return self.x - by <= x <= self.x + self.width + by and self.y - by <= y <= self.y + self.height + by

    def overlaps(self, other: Rectangle) -> bool:
        apart_x = self.x + self.width <= other.x or other.x + other.width <= self.x
        return not (apart_x or self.y + self.height <= other.y or other.y + other.height <= self.y)


def way(d: str) -> list[tuple[float, float]]:
    """Points along a path of M, V and C."""
    points: list[tuple[float, float]] = []
    for letter, rest in re.findall(r"([MVC])([^MVC]*)", d):
        numbers = [float(n) for n in rest.split()]
        if letter == "M":
            points.append((numbers[0], numbers[1]))
        elif letter == "V":
            (x, y), end = points[-1], numbers[0]
            points += [(x, y + (end - y) * t) for t in np.linspace(0, 1, 20)[1:]]
        else:
            bezier = np.array([points[-1], *zip(numbers[::2], numbers[1::2], strict=True)])
            t = np.linspace(0, 1, 20)[1:, None]
            weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
            points += [tuple(p) for p in sum(w * b for w, b in zip(weights, bezier, strict=True))]
    return points


def test_the_picture_is_whole(drawn: Graph):
    root = ET.fromstring(drawn.svg)
    left, top, width, height = map(float, root.get("viewBox", "").split())
    assert (left, top) == (0, 0) and (float(root.get("width", "")), float(root.get("height", ""))) == (width, height)
    page = Rectangle(ET.Element("rect", x="0", y="0", width=str(width), height=str(height)))
    boxes = [Rectangle(element) for element in root.iter(f"{SVG}rect") if element.get("class") == "node"]
    frames = [Rectangle(element) for element in root.iter(f"{SVG}rect") if element.get("class") == "group"]
    assert len(boxes) == len(drawn.nodes)
    alone = [
        i
        for i in range(len(drawn.groups))
        if i not in [node.group for node in drawn.nodes] and sum(group.parent == i for group in drawn.groups) == 1
    ]
    assert len(frames) == len(drawn.groups) - len(alone)  # such a group becomes one with the one in it
    assert all(page.holds(box) for box in boxes + frames)
    for a, b in combinations(boxes, 2):
        assert not a.overlaps(b)
    for a, b in combinations(frames, 2):
        assert a.holds(b) or b.holds(a) or not a.overlaps(b)
    for frame in frames:
        assert all(frame.holds(box) or not frame.overlaps(box) for box in boxes)

    arrows: Counter[int] = Counter()
    for element in root.iter(f"{SVG}path"):
        if element.get("class") != "wire":
            continue
        points = way(element.get("d", ""))
        assert all(page.near(*point) for point in points)
        assert all(b[1] >= a[1] - 0.2 for a, b in pairwise(points)), "data flows downwards"
        for box in boxes:
            assert not any(box.near(*point, by=-1.0) for point in points), "a wire runs through a box"
        if element.get("marker-end"):
            x, y = points[-1]
            [end] = [i for i, box in enumerate(boxes) if abs(box.y - y) < 0.2 and box.near(x, y)]
            arrows[end] += 1
    into = {(edge.source, edge.value, edge.target) for edge in drawn.edges}
    assert arrows == Counter(target for _, _, target in into)


def test_text_fits_its_box(drawn: Graph):
    root = ET.fromstring(drawn.svg)
    for group in root.iter(f"{SVG}g"):
        box = Rectangle(next(group.iter(f"{SVG}rect")))
        for text in group.iter(f"{SVG}text"):
            wide = 0.5 * float(text.get("font-size", "")) * len(text.text or "")  # a narrow estimate of the width
            assert wide <= box.width and box.near(float(text.get("x", "")), float(text.get("y", "")))


# As a file


@pytest.mark.parametrize("suffix", ["svg", "dot"])
def test_files_hold_the_graph(tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    found = jdl.graph(MLP, IMAGES, path=path)
    assert path.read_text(encoding="utf-8") == getattr(found, suffix)
    assert list(tmp_path.iterdir()) == [path]
    assert found._repr_svg_() == found.svg


def test_saving_that_fails_leaves_what_was(tmp_path, monkeypatch):
    found, path = graph(MLP, IMAGES), tmp_path / "model.svg"
    path.write_text("before")
    monkeypatch.setattr(saving.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        found.save(path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_bad_input_is_said(tmp_path):
    with pytest.raises(InputError, match=r"path got the suffix '.png', wanted .svg or .dot"):
        graph(MLP, IMAGES, path=tmp_path / "model.png")
    with pytest.raises(InputError, match=r"folder .* does not exist; make it first"):
        graph(MLP, IMAGES, path=tmp_path / "missing" / "model.svg")
    with pytest.raises(InputError, match="detail got 'neurons', wanted 'layers' or 'operations'"):
        graph(MLP, IMAGES, detail="neurons")
    with pytest.raises(InputError, match="wanted a layer such as"):
        graph([nn.Dense(3)], IMAGES)  # pyright: ignore[reportArgumentType]
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_allocated():
    before = sum(array.nbytes for array in jax.live_arrays())
    found = graph(nn.Chain(nn.Dense(100_000), nn.relu, nn.Dense(100_000)), like(4, 100_000))
    assert "10 G parameters" in found.svg
    assert sum(array.nbytes for array in jax.live_arrays()) == before
