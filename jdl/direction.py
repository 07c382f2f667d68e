"""Which way a number is better."""

from __future__ import annotations

import re

_LESS = re.compile("loss|error|entropy|perplexity|mse|mae|rmse|divergence|distance")


def less_is_better(name: str) -> bool:
    """Whether less of the metric ``name`` is better, as of losses and errors; of anything else more is."""
    return bool(_LESS.search(name))
