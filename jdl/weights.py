"""Weights as one safetensors file: arrays by path, which any reader of the format understands, and no code."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from jdl import check, saving, trees
from jdl.check import InputError

_SUFFIXES = (".safetensors",)
_DTYPES = {
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BOOL": "bool",
    "BF16": "bfloat16",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
_STARS = re.compile(r"\*+")
_SHOWN = 20  # names that a warning lists; an error lists all


class WeightsWarning(UserWarning):
    """A file of weights was loaded in part; the message lists what the model or the file has alone."""


def save_weights(path: str | Path, variables: Any) -> None:
    """Write arrays to one ``.safetensors`` file, each under its path.

    ``Variables`` give ``params/0/kernel`` and ``state/1/mean``; ``run.params`` alone, ``0/kernel``. The file is whole
    or not there. Format: https://github.com/huggingface/safetensors.

    >>> jdl.save_weights("digits.safetensors", run.variables)

    Raises:
        InputError: a leaf is no array, is a typed PRNG key, or has a dtype that safetensors does not know; or the
        suffix or the folder is wrong.
    """
    saving.check_suffix(path, _SUFFIXES)
    leaves = trees.by_path(variables, "variables")
    for name, leaf in leaves.items():
        if trees.is_key(leaf):
            raise InputError(f"{name} is a PRNG key, wanted numbers; save jax.random.key_data(key)", "variables")
        if leaf.dtype.name not in _DTYPES.values():
            raise InputError(f"{name} got {check.describe(leaf)}, which safetensors cannot hold; cast it", "variables")
    arrays = dict(zip(leaves, trees.to_host(leaves.values()), strict=True))
    saving.save(path, lambda beside: safetensors.numpy.save_file(arrays, beside), _SUFFIXES)


def load_weights(path: str | Path, like: Any, *, strict: bool = True, rename: Mapping[str, str] | None = None) -> Any:
    """The arrays of a ``.safetensors`` file in the structure of ``like``, and placed where its arrays lie.

    >>> like = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> variables = jdl.load_weights("digits.safetensors", like)

    Args:
        path: what :func:`save_weights` or anyone else wrote.
        like: variables, or any tree of arrays or of ``jax.ShapeDtypeStruct``. ``like.params`` for a file of parameters.
        strict: every array must stand on both sides with one shape and dtype. Otherwise what fits is loaded, the rest
            stays as in ``like``, which then holds arrays, and a :class:`jdl.WeightsWarning` lists it.
        rename: names in the file to names in the model, by patterns of whole paths, of which the first match wins:
            ``{"encoder/**": "body/**", "**/weight": "**/kernel"}``. What ``*`` (within one segment) and ``**`` (any
            number of segments) stand for is put in place of those on the right, in order.

    Raises:
        InputError: the file is missing, cut off or no safetensors; a pattern matches nothing or gives two arrays one
        name; arrays differ (all of them are listed); or, if not strict, none fits.
    """
    wanted = trees.by_path(like, "like")
    arrays = _renamed(_read(Path(path)), rename or {})
    found = {name: check.describe(array) for name, array in arrays.items()}
    texts = {name: check.describe(leaf) for name, leaf in wanted.items()}
    lines = trees.differences(found, texts, "file")
    if lines:
        _report(lines, path, strict, found, texts)
    leaves = []
    for name, leaf in wanted.items():
        if found.get(name) == texts[name]:
            leaves.append(trees.place(arrays[name], leaf))
        elif isinstance(leaf, jax.ShapeDtypeStruct):
            raise InputError(f"{name} is not in the file and has no value in like; give variables, not shapes", "like")
        else:
            leaves.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _report(
    lines: list[str], path: str | Path, strict: bool, found: Mapping[str, str], texts: Mapping[str, str]
) -> None:
    """An error or a warning about arrays that differ."""
    fitting = [name for name in texts if found.get(name) == texts[name]]
    counted = f"{len(lines)} arrays of {str(path)!r} and the model differ"
    if strict or not fitting:
        listed = "".join(f"\n  {line}" for line in lines)
        raise InputError(f"{counted}; {_fix(found, texts, strict)}{listed}", "load_weights")
    listed = "".join(f"\n  {line}" for line in lines[:_SHOWN])
    more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    text = f"loaded {len(fitting)} of {len(texts)} arrays; {counted}, and the model keeps its own{listed}{more}"
    warnings.warn(WeightsWarning(text), stacklevel=3)


def _fix(found: Mapping[str, str], texts: Mapping[str, str], strict: bool) -> str:
    if found.keys() == texts.keys():
        if any(_shape(found[name]) != _shape(texts[name]) for name in texts):
            return "the model has other sizes now"
        return "cast like to the dtypes of the file, and the result back, with jax.tree.map"
    for start in {name.partition("/")[0] for name in texts}:
        if found.keys() == {name.removeprefix(f"{start}/") for name in texts}:
            return f"the file leaves out {start}/: load into that part of like, or rename={{'**': '{start}/**'}}"
    for start in {name.partition("/")[0] for name in found}:
        if texts.keys() == {name.removeprefix(f"{start}/") for name in found}:
            return f"the file puts {start}/ in front: rename={{'{start}/**': '**'}}"
    return "rename=... maps names" + (", strict=False loads what fits" if strict else "; none fits")


def _shape(text: str) -> str:
    return text[text.index("[") :]


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"path got {str(path)!r}, where there is no file") from None
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise InputError(f"{str(path)!r} is not a safetensors file, or is cut off: {error}") from None
    return {name: _array(name, entry) for name, entry in sorted(entries)}


def _array(name: str, entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise InputError(f"{name} has the dtype {entry['dtype']}, which NumPy and JAX do not have", "load_weights")
    return np.frombuffer(entry["data"], jax.numpy.dtype(_DTYPES[entry["dtype"]])).reshape(entry["shape"])


def _renamed(arrays: dict[str, np.ndarray], rules: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays under the names of the model."""
    parsed = [(_pattern(old), old, new) for old, new in rules.items()]
    for pattern, old, new in parsed:
        for wildcard in ("**", "*"):
            if _wildcards(new).count(wildcard) > _wildcards(old).count(wildcard):
                raise InputError(f"rename got {old!r}: {new!r}, with more {wildcard!r} on the right", "load_weights")
        if not any(pattern.fullmatch(name) for name in arrays):
            near = ", ".join(list(arrays)[:3])
            raise InputError(f"rename got {old!r}, which matches no name in the file: {near}, …", "load_weights")
    renamed: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    for name, array in arrays.items():
        target = next((_fill(new, old, match) for p, old, new in parsed if (match := p.fullmatch(name))), name)
        if target in renamed:
            raise InputError(f"rename gives both {origin[target]!r} and {name!r} the name {target!r}", "load_weights")
        renamed[target], origin[target] = array, name
    return renamed


def _wildcards(pattern: str) -> list[str]:
    """``*`` and ``**`` in their order; ``**`` is a whole segment."""
    parts = pattern.split("/")
    return [star for part in parts for star in (["**"] if part == "**" else ["*"] * len(_STARS.findall(part)))]


def _pattern(glob: str) -> re.Pattern[str]:
    """Each wildcard of a glob as a group; ``**`` may stand for nothing, and then its slash goes too."""
    *parts, last = glob.split("/")
    text = "".join("(?:(.*)/)?" if part == "**" else f"{_segment(part)}/" for part in parts)
    if last != "**":
        return re.compile(text + _segment(last))
    return re.compile(f"{text[:-1]}(?:/(.*))?" if text.endswith("/") else f"{text}(.*)")


def _segment(part: str) -> str:
    return "([^/]*)".join(map(re.escape, _STARS.split(part)))


def _fill(new: str, old: str, match: re.Match[str]) -> str:
    captured = [(star, text or "") for star, text in zip(_wildcards(old), match.groups(), strict=True)]
    texts = {kind: iter([text for star, text in captured if star == kind]) for kind in ("*", "**")}
    parts = (
        next(texts["**"]) if part == "**" else _STARS.sub(lambda _: next(texts["*"]), part) for part in new.split("/")
    )
    return "/".join(part for part in parts if part)
