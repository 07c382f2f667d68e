"""Inputs, and targets of a regression, that are far from mean 0 and standard deviation 1."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jdl.diagnosis import reach
from jdl.diagnosis.findings import INPUTS, TARGETS, Finding
from jdl.nn.core import Layer
from jdl.nn.paths import paths
from jdl.objectives import model_inputs

# Standardised tables, images in 0..1 or -1..1, one-hot columns and embeddings all lie well within these.
LARGE = 10.0  # root mean square of a feature; pixels of 0..255 have 80 to 150
SMALL = 0.01  # the same, of everything together; images divided by 255 twice have 0.002
OFFSET = 30.0  # mean over standard deviation of a feature
SPREAD = 100.0  # the largest standard deviation over the smallest
MOSTLY = 0.9  # a feature with one value in so many examples is sparse, and its small deviation no scale
FEW = 8  # examples that may be the same by chance
ROWS = 512

_WHY = (
    "The gradient of a weight is proportional to its input: features of different or extreme scales make directions of "
    "very different curvature, so no one learning rate fits all weights, and the first activations saturate."
)
_TRY = "normalise by the training split: jdl.data.Normaliser.fit(train.inputs).apply, or pixels / 255"


@dataclasses.dataclass(frozen=True)
class Scale:
    """Statistics of features ``[F]`` (the last axis), pooled over all other axes."""

    mean: np.ndarray
    std: np.ndarray
    sparse: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Scale:
        """Measure ``[N, …, F]`` on rows spread evenly over the data. A constant has a standard deviation of 0."""
        rows = values[:: max(1, -(-len(values) // ROWS))]
        flat = np.asarray(rows, np.float64).reshape(len(rows), -1) if rows.ndim <= 1 else _by_feature(rows)
        with np.errstate(over="ignore", invalid="ignore"):  # what is that large is found all the same
            mean, std = flat.mean(0), flat.std(0)
        std = np.where(std <= 1e-6 * np.abs(mean), 0, std)  # equal values, rounded
        suspect = _suspect(mean, std)
        sparse = np.zeros(mean.shape, bool)
        sparse[suspect] = [_share_of_commonest(flat[:, index]) >= MOSTLY for index in np.flatnonzero(suspect)]
        return cls(mean, std, sparse)

    @property
    def rms(self) -> np.ndarray:
        """Root mean square of each feature."""
        return np.hypot(self.mean, self.std)


def _by_feature(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(-1, rows.shape[-1])
    return np.asarray(flat[:: max(1, len(flat) // 65536)], np.float64)


def _suspect(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Features of which it matters whether they are sparse: looking costs a sort."""
    spread = std < std.max(initial=0) / SPREAD
    return (std > 0) & (spread | (np.abs(mean) > OFFSET * std))


def _share_of_commonest(values: np.ndarray) -> float:
    return np.unique(values, return_counts=True)[1].max() / len(values)


def off_scale(values: np.ndarray) -> tuple[str, dict[str, Any]] | None:
    """What is wrong with the scale of ``[N, …, F]``, in words and numbers; None where nothing is."""
    scale = Scale.of(values)
    dense = (scale.std > 0) & ~scale.sparse
    numbers = {"mean": scale.mean, "std": scale.std}
    pooled = float(np.linalg.norm(scale.rms) / np.sqrt(scale.rms.size))
    if not scale.std.any() and len(values) >= FEW:
        words = f"all {len(values):,} examples are the same"
    elif (large := np.flatnonzero(scale.rms > LARGE)).size:
        worst = int(scale.rms.argmax())
        count = f"{large.size} of {len(scale.mean)} features have" if len(scale.mean) > 1 else "the values have"
        words = f"{count} a root mean square above {LARGE:g}; {_feature(scale, worst)}"
    elif pooled and pooled < SMALL:
        words = f"the values have a root mean square of {pooled:.2g}, all together"
    elif (far := np.flatnonzero(dense & (np.abs(scale.mean) > OFFSET * scale.std))).size:
        worst = int(far[np.argmax(np.abs(scale.mean[far]) / scale.std[far])])
        words = f"{far.size} of {len(scale.mean)} features are offset by more than {OFFSET:g} times their deviation; "
        words += _feature(scale, worst)
    elif dense.any() and scale.std[dense].max() > SPREAD * scale.std[dense].min():
        low, high = (int(np.flatnonzero(dense)[f(scale.std[dense])]) for f in (np.argmin, np.argmax))
        words = f"features differ in scale by a factor of {scale.std[high] / scale.std[low]:.3g}: "
        words += f"{_feature(scale, low)}, {_feature(scale, high)}"
    else:
        return None
    return words, numbers


def _feature(scale: Scale, index: int) -> str:
    which = f"feature {index} has" if len(scale.mean) > 1 else "their"
    return f"{which} mean {scale.mean[index]:.3g} and standard deviation {scale.std[index]:.3g}"


def check_inputs(model: Layer, inputs: Any, name: str = "inputs") -> list[Finding]:
    """A finding for each array ``[N, …]`` of the inputs that is off scale and meets weights as it is."""
    leaves, treedef = jax.tree.flatten(inputs)
    found = [off_scale(np.asarray(leaf)) if _is_real(leaf) else None for leaf in leaves]
    if not any(found):
        return []
    # Only now is it worth a trace: whether the model itself scales what it is given, or takes it for ids.
    positional, named = model_inputs(jax.tree.unflatten(treedef, [reach.abstract(x, 2) for x in leaves]))
    try:
        raw = reach.meets_weights(model, positional, named)
    except Exception:  # the model says better itself what it cannot take
        return []
    names = [f"{name}/{path}" if path else name for path in paths(inputs)]
    return [
        Finding(INPUTS, said[0], _WHY, _TRY, path, said[1])
        for path, said, meets in zip(names, found, raw, strict=True)
        if said is not None and meets
    ]


def check_regression_targets(targets: np.ndarray, name: str = "targets") -> list[Finding]:
    """A finding for targets of a regression ``[N, …]`` that are far from mean 0 and standard deviation 1."""
    said = off_scale(targets[:, None] if targets.ndim == 1 else targets)
    if said is None:
        return []
    why = (
        "A new head puts out numbers near 0 and 1; the distance to the targets is walked at the learning rate's pace, "
        "and losses and gradients of this size make usual learning rates diverge or crawl."
    )
    fix = "train on (targets - mean) / std of the training split (jdl.data.Normaliser) and invert the predictions"
    return [Finding(TARGETS, said[0], why, fix, name, said[1])]


def _is_real(leaf: Any) -> bool:
    """Numbers of more than one example, of a kind that has a scale."""
    return leaf.dtype.kind in "fiu" and leaf.ndim > 0 and len(leaf) > 1
