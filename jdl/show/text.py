"""Layers, shapes and numbers as short text."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jdl import check
from jdl.nn.settings import Settings

_UNITS = ("", " k", " M", " G", " T", " P")


def number(value: float, unit: str = "") -> str:
    """Three digits and a unit: ``1.2 M``, ``48 kB``; whole below a thousand."""
    power = 0
    while abs(value) >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    digits = f"{value:.3g}" if power else f"{value:.0f}"
    gap = " " if unit and not power else ""
    return f"{digits}{_UNITS[power]}{gap}{unit}"


def shape(x: Any) -> str:
    """``[32, 10]`` of an array, its dtype named where it is not float32; a tuple or dict of them in brackets."""
    if isinstance(x, (tuple, list)):
        return "(" + ", ".join(map(shape, x)) + ")"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{name}: {shape(value)}" for name, value in x.items()) + "}"
    described = check.describe(x)
    return "scalar" if described == "float32[]" else described.removeprefix("float32")


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def title(layer: Settings, width: int, whole: bool = True) -> str:
    """A layer's settings in at most ``width`` characters; without the layers it holds where not ``whole``."""
    if whole and len(text := repr(layer)) <= width:
        return text
    parts = []
    for field in dataclasses.fields(layer):  # pyright: ignore[reportArgumentType]
        value = getattr(layer, field.name)
        if value == field.default or any(isinstance(leaf, Settings) for leaf in jax.tree.leaves(value)):
            continue
        text = getattr(value, "__name__", None) or repr(value)
        parts.append(text if field.default is dataclasses.MISSING else f"{field.name}={text}")
    return cut(f"{type(layer).__name__}({', '.join(parts)})" if parts else type(layer).__name__, width)
