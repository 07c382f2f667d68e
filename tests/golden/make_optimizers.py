"""PyTorch's parameters after each of ten steps of every optimizer: ``python tests/golden/make_optimizers.py``.

Writes optimizers.npz beside itself: the data (inputs [N, D], targets [N, 1]), the first parameters of a logistic
regression trained on its squared error, and, for each optimizer by name, ``NAME/kernel`` [10, D, 1] and ``NAME/bias``
[10, 1]. Computed in float64 from float32 data. Epsilons are large, so that their place in a formula shows.

PyTorch adds epsilon outside the root. Where optax cannot do the same (AdaGrad) it is 0, and the accumulator starts at
0.1 in both.

Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

STEPS, N, D = 10, 16, 5

OPTIMIZERS: dict[str, Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]] = {
    "gradient descent": lambda p: torch.optim.SGD(p, lr=0.5),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, nesterov=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.5, eps=0.0, initial_accumulator_value=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=0.9, eps=1e-2),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.99), eps=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.9, 0.99), eps=1e-2, weight_decay=0.2),
}


def main() -> None:
    rng = np.random.default_rng(7)
    arrays = {
        "inputs": rng.normal(size=(N, D)),
        "targets": rng.integers(0, 2, size=(N, 1)),
        "kernel": rng.normal(size=(D, 1)),
        "bias": rng.normal(size=1),
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    inputs, targets = (torch.tensor(arrays[name], dtype=torch.float64) for name in ("inputs", "targets"))
    results = {}
    for name, make in OPTIMIZERS.items():
        params = {key: torch.tensor(arrays[key], dtype=torch.float64, requires_grad=True) for key in ("kernel", "bias")}
        optimizer = make(params.values())
        path = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            outputs = torch.sigmoid(inputs @ params["kernel"] + params["bias"])
            ((outputs - targets) ** 2).mean().backward()
            optimizer.step()
            path.append({key: value.detach().numpy().copy() for key, value in params.items()})
        results |= {f"{name}/{key}": np.stack([point[key] for point in path]).astype(np.float32) for key in params}
    np.savez_compressed(Path(__file__).parent / "optimizers.npz", **arrays, **results)  # pyright: ignore
    print(f"{len(OPTIMIZERS)} optimizers")


if __name__ == "__main__":
    main()
