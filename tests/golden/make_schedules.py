"""The rates that PyTorch's schedulers train at, step by step: ``python tests/golden/make_schedules.py``.

Writes schedules.npz beside itself: for each schedule by name, [60] rates in float64, from a first rate of 0.1.

Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler as lr

STEPS = 60


def after_warm_up(optimizer: Any, steps: int, then: Callable[[Any], Any]) -> Any:
    """A straight line of (k + 1)/(steps + 1), then another scheduler from its start."""
    line = lr.LinearLR(optimizer, start_factor=1 / (steps + 1), total_iters=steps)
    return lr.SequentialLR(optimizer, [line, then(optimizer)], milestones=[steps])


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "constant": lambda o: lr.ConstantLR(o, factor=1.0),
    "step decay": lambda o: lr.StepLR(o, 7, gamma=0.3),
    "exponential decay": lambda o: lr.ExponentialLR(o, 0.9),
    "linear decay": lambda o: lr.LinearLR(o, start_factor=1.0, end_factor=0.2, total_iters=40),
    "polynomial decay": lambda o: lr.PolynomialLR(o, total_iters=40, power=2.5),
    "cosine annealing": lambda o: lr.CosineAnnealingLR(o, STEPS, eta_min=0.01),
    "cosine annealing, warm-up": lambda o: after_warm_up(
        o, 11, lambda o: lr.CosineAnnealingLR(o, STEPS - 11, eta_min=0.01)
    ),
    "restarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 9, eta_min=0.01),
    "longer restarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 4, T_mult=3),
    "one cycle": lambda o: lr.OneCycleLR(o, max_lr=0.1, total_steps=STEPS),
    "one cycle, other shares": lambda o: lr.OneCycleLR(
        o, max_lr=0.1, total_steps=STEPS, pct_start=0.43, div_factor=5, final_div_factor=10
    ),
    "warm-up": lambda o: after_warm_up(o, 13, lambda o: lr.StepLR(o, 10, gamma=0.5)),
}


def main() -> None:
    warnings.filterwarnings("ignore", category=UserWarning)  # SequentialLR warns of its own calls
    results = {}
    for name, make in SCHEDULERS.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        scheduler, rates = make(optimizer), []
        for _ in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if len(rates) < STEPS:
                scheduler.step()
        results[name] = np.asarray(rates, np.float64)
    np.savez_compressed(Path(__file__).parent / "schedules.npz", **results)  # pyright: ignore
    print(f"{len(SCHEDULERS)} schedules")


if __name__ == "__main__":
    main()
