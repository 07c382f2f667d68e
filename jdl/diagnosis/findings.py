"""What a diagnosis says: findings by name, and the report they make."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

INPUTS = "inputs not normalised"
TARGETS = "targets not normalised"
LABELS = "labels do not fit the head"
FIRST_LOSS = "loss at initialisation"
DEAD = "dead units"
SATURATED = "saturated units"
VANISHING = "vanishing gradients"
EXPLODING = "exploding gradients"
NO_GRADIENT = "all zero gradient"
RATE_TOO_HIGH = "learning rate too high"
RATE_TOO_LOW = "learning rate too low"
NO_VALIDATION = "no validation"
OVERLAP = "validation overlaps training"
NOT_OVERFITTED = "a batch that cannot be overfitted"
EVALUATION = "evaluation differs from training"

NAMES = (
    INPUTS,
    TARGETS,
    LABELS,
    FIRST_LOSS,
    DEAD,
    SATURATED,
    VANISHING,
    EXPLODING,
    NO_GRADIENT,
    RATE_TOO_HIGH,
    RATE_TOO_LOW,
    NO_VALIDATION,
    OVERLAP,
    NOT_OVERFITTED,
    EVALUATION,
)


class PitfallWarning(UserWarning):
    """``fit`` saw a pitfall before the first step; :func:`jdl.diagnose` looks closer."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One pitfall: ``name`` (see the table of names), what was ``measured``, ``why`` it matters, what to ``try_``.

    ``path`` is the layer, parameter or array where it was seen; ``numbers`` holds what was measured, for programs.
    """

    name: str
    measured: str
    why: str
    try_: str
    path: str = ""
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        parts = {"measured": self.measured, "why": self.why, "try": self.try_}
        lines = [f"{self.name} ({self.path})" if self.path else self.name]
        lines += [_paragraph(f"  {label:<10}", text) for label, text in parts.items()]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Diagnosis(Sequence[Finding]):
    """The findings, most basic first; printing it gives the report.

    ``checked`` says what was found in order, ``skipped`` what could not be looked at and why. ``numbers`` holds what
    was measured, found in order or not: ``first_loss`` (over its expected value), ``dead`` and ``saturated`` (the
    largest share of a layer's units), ``gradient_ratio`` (first layer over last), ``update_ratio`` (updates over
    weights) and ``learned_after`` (steps to learn the batch by heart).
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each finding, without repetition."""
        return tuple(dict.fromkeys(finding.name for finding in self.findings))

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, index: int | slice) -> Finding | tuple[Finding, ...]:
        return self.findings[index]

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __str__(self) -> str:
        count = len(self.findings)
        title = f"{count} pitfall{'s' * (count != 1)} found" if count else "no pitfalls found"
        blocks = [title, *(f"{number}. {finding}" for number, finding in enumerate(self.findings, start=1))]
        for label, lines in (("checked", self.checked), ("not checked", self.skipped)):
            if lines:
                blocks.append("\n".join([f"{label}:", *(_paragraph("  - ", line) for line in lines)]))
        return "\n\n".join(blocks)

    __repr__ = __str__


def _paragraph(start: str, text: str) -> str:
    return textwrap.fill(text, 110, initial_indent=start, subsequent_indent=" " * len(start), break_long_words=False)
