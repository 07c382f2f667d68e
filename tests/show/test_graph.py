"""The computation graph as a value, against the program it is drawn from."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Literal
from jax.interpreters.partial_eval import dce_jaxpr

from jdl import nn
from jdl.show import Graph, graph
from tests.show.models import CASES, CNN, IMAGES, MLP, MODELS, ROWS, Block, Branching, Shared, TwoInputs, like


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
    assert {node.note for node in found.nodes if node.name == "Dropout(0.5)"} == {""}
    block = graph(Block(), like(2, 5, 8), train=True)
    assert [node.note for node in block.nodes if node.path == "drop"] == ["", ""]  # nothing that two calls could share
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
