"""The computation graph as DOT, as a picture and as a file."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import combinations, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl import nn, saving
from jdl.check import InputError
from jdl.show import Graph, graph
from tests.show.models import CASES, IMAGES, MLP, MODELS, ROWS, Doubled, like


@pytest.fixture(params=CASES, ids=lambda case: " ".join(map(str, case)))
def drawn(request) -> Graph:
    name, detail, train = request.param
    model, inputs = MODELS[name]
    return graph(model, *inputs, detail=detail, train=train)


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


def test_operations_read_as_formulas():
    class Formulas(nn.Layer):
        def forward(self, net, x):
            y = net.child("between", nn.Dense(3))(1.0 - x / 2.0)
            return jnp.maximum(jnp.exp(y * y * y), 0.5) + x

    def texts(detail):
        root = ET.fromstring(graph(Formulas(), ROWS, detail=detail).svg)
        return [text.text for group in root.iter(f"{SVG}g") for text in group.iter(f"{SVG}text")]

    assert {"1 − ·", "· ÷ 2", "×", "exp", "max(·, 0.5)", "+"} <= set(texts("operations"))
    assert {"div, sub", "2 operations", "mul, exp, max, …", "5 operations"} <= set(texts("layers"))
    root = ET.fromstring(graph(nn.Residual(nn.Chain(nn.relu, lambda x: x)), ROWS).svg)
    assert "+" in [text.text for text in root.iter(f"{SVG}text")]
    doubled = graph(Doubled(), ROWS)
    assert [(node.name, node.note) for node in doubled.nodes if node.kind == "operation"] == [("mul", "2 operations")]
    assert ">mul</text>" in doubled.svg and ">2 operations</text>" in doubled.svg


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
