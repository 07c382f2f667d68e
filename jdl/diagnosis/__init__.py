"""Pitfalls found and named before they cost a run: :func:`diagnose`, and what ``fit`` looks at by itself, `light`."""

from jdl.diagnosis.diagnosing import diagnose
from jdl.diagnosis.findings import NAMES, Diagnosis, Finding, PitfallWarning
from jdl.diagnosis.light import light

__all__ = ["NAMES", "Diagnosis", "Finding", "PitfallWarning", "diagnose", "light"]
