"""The table of a model's layers: output shapes, parameters, FLOPs and bytes, by abstract evaluation."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax

from jdl import check
from jdl.check import InputError
from jdl.nn.core import Layer
from jdl.nn.paths import paths
from jdl.nn.settings import Tree, Variables
from jdl.nn.spec import Row, Spec
from jdl.show import text

_PATH, _LAYER, _OUTPUT = 24, 25, 18  # the widest that a column grows, so that a line keeps within 100
_DEEPEST = 7  # levels that are indented
_HEADER = ("path", "layer", "output", "parameters", "FLOPs", "bytes")


@dataclasses.dataclass(frozen=True, repr=False)
class Summary:
    """A model's table, as text by ``print(summary)``; the numbers behind it are in ``spec``.

    ``frozen`` counts the parameters that the given variables keep as state, which ``spec`` counts among the others.
    """

    spec: Spec
    frozen: int = 0

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        rows = _rows(self.spec.rows)
        if any(numbers := _elsewhere(self.spec)):
            rows.append(("", "only in training", "", *numbers))
        widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]
        lines = [_line(cells, widths) for cells in (_HEADER, *rows)]
        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([lines[0], rule, *lines[1:], rule, *_totals(self.spec, self.frozen)])


def summary(model: Layer, *inputs: Any, variables: Variables | None = None, **options: Any) -> Summary:
    """Every layer of ``model`` with its output shape, parameters, FLOPs and bytes: ``print(summary(model, x))``.

    Only shapes are computed, so a model of any size fits. A layer's numbers are its own, without those of the layers
    in it; one called twice shows its parameters at its first call. A FLOP is one operation of a forward pass in
    evaluation mode, a multiply-add counting two; bytes are those of parameters and state.

    Args:
        model: a layer.
        inputs: arrays or ``jax.ShapeDtypeStruct``, as the model takes them.
        variables: the model's, of which some may be frozen (:func:`jdl.freeze`): these are then counted by themselves.
        options: further keywords of the model's forward.

    Raises:
        InputError: the model does not take these inputs, or has other variables.
    """
    if not isinstance(model, Layer):
        raise InputError(f"model got {check.describe(model)}, wanted a layer such as nn.Chain(nn.Dense(10))")
    spec = model.spec(*inputs, **options)
    return Summary(spec, 0 if variables is None else _frozen(spec, variables))


def _frozen(spec: Spec, variables: Variables) -> int:
    """How many numbers of the model's parameters stand in the state of its variables."""
    if not isinstance(variables, Variables):
        raise InputError(f"variables got {type(variables).__name__}, wanted jdl.Variables, as model.init makes them")
    state, declared = _by_path(variables.state), _by_path(spec.params)
    held = state | _by_path(variables.params)
    for path, wanted in declared.items():
        if path not in held or held[path].shape != wanted.shape:
            got = check.describe(held[path]) if path in held else "nothing"
            fix = "they belong to another model, or to another width of input"
            raise InputError(f"variables got {got} for {path}, wanted {check.describe(wanted)}; {fix}")
    return sum(math.prod(wanted.shape) for path, wanted in declared.items() if path in state)


def _by_path(tree: Tree) -> dict[str, Any]:
    return dict(zip(paths(tree), jax.tree.leaves(tree), strict=True))


def _cells(row: Row, parent: Row | None, composite: bool) -> tuple[str, ...]:
    path = row.path.removeprefix(f"{parent.path}/" if parent and parent.path else "")
    place = "" if parent and row.path == parent.path else path
    return (
        text.cut("  " * min(row.depth, _DEEPEST) + place, _PATH),
        text.title(row.layer, _LAYER, whole=not composite),
        text.cut(text.shape(row.output), _OUTPUT),
        *_numbers(row.parameters, row.flops, row.bytes),
    )


def _rows(rows: tuple[Row, ...]) -> list[tuple[str, ...]]:
    around: list[Row] = []
    cells = []
    for row, following in zip(rows, (*rows[1:], None), strict=True):
        del around[row.depth :]
        composite = following is not None and following.depth > row.depth
        cells.append(_cells(row, around[-1] if around else None, composite))
        around.append(row)
    return cells


def _numbers(parameters: int, flops: int, size: int) -> tuple[str, ...]:
    """Blank where there is nothing."""
    return tuple(
        text.number(value, unit) if value else "" for value, unit in ((parameters, ""), (flops, ""), (size, "B"))
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join(left + right).rstrip()


def _elsewhere(spec: Spec) -> tuple[str, ...]:
    """What stands in layers that run only in training."""
    return _numbers(
        spec.parameters - sum(row.parameters for row in spec.rows), 0, spec.bytes - sum(row.bytes for row in spec.rows)
    )


def _totals(spec: Spec, frozen: int) -> list[str]:
    lines = [
        ("trained", f"{spec.parameters - frozen:,} parameters"),
        ("frozen", f"{frozen:,} parameters" if frozen else ""),
        ("not trained", f"{spec.untrained:,} numbers of state" if spec.untrained else ""),
        ("memory", f"{text.number(spec.bytes, 'B')} ({spec.bytes:,} bytes)"),
        ("forward pass", f"{text.number(spec.flops, 'FLOPs')} ({spec.flops:,})"),
    ]
    return [f"{name:<14}{value}" for name, value in lines if value]
