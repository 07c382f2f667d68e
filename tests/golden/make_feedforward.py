"""PyTorch's values and gradients of the feed-forward and radial networks: ``python tests/golden/make_feedforward.py``.

Writes feedforward.npz beside itself. Of the network NAME it keeps

    NAME/seed       of `drawn`, which gives x and the parameters to this script and to the test alike
    NAME/out        PyTorch's output
    NAME/grad/PATH  gradients of sum(cos(0, 1, 2, …) * output), flat, at most `KEPT` numbers of each at an even stride

Radial units are written in closed form, distance by distance. Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

KEPT = 2000
Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

# By name: the shapes of x and of the parameters, by their paths in our networks.
NETWORKS: dict[str, Shapes] = {
    "FeedForward": {
        "x": (5, 2, 3),
        "hidden/kernel": (6, 4),
        "hidden/bias": (4,),
        "output/kernel": (4, 3),
        "output/bias": (3,),
    },
    "DeepFeedForward": {
        "x": (5, 6),
        "hidden_0/kernel": (6, 5),
        "hidden_0/bias": (5,),
        "norm_0/scale": (5,),
        "norm_0/bias": (5,),
        "hidden_1/kernel": (5, 4),
        "hidden_1/bias": (4,),
        "norm_1/scale": (4,),
        "norm_1/bias": (4,),
        "output/kernel": (4, 3),
        "output/bias": (3,),
    },
    "RadialBasis": {"x": (7, 3), "centres": (4, 3), "log_widths": (4,)},
    "RadialBasisNetwork": {
        "x": (7, 2, 3),
        "basis/centres": (5, 6),
        "basis/log_widths": (5,),
        "output/kernel": (5, 3),
        "output/bias": (3,),
    },
    "XORNet": {
        "x": (4, 2),
        "hidden/kernel": (2, 2),
        "hidden/bias": (2,),
        "output/kernel": (2, 1),
        "output/bias": (1,),
    },
    "BinaryClassifier": {"x": (6, 10), "0/kernel": (10, 64), "0/bias": (64,), "2/kernel": (64, 1), "2/bias": (1,)},
    "SimpleNet": {
        "x": (3, 28, 28, 1),
        "1/kernel": (784, 128),
        "1/bias": (128,),
        "3/kernel": (128, 10),
        "3/bias": (10,),
    },
}


def drawn(name: str, seed: int) -> Arrays:
    """x and the parameters, from a generator whose numbers NumPy never changes."""
    draw = np.random.RandomState(seed).normal
    found = {}
    for path, shape in NETWORKS[name].items():
        scale = shape[0] ** -0.5 if path.endswith("kernel") else 1.0
        found[path] = draw(scale=scale, size=shape).astype(np.float32)
    return found


def thinned(gradient: np.ndarray) -> np.ndarray:
    """What the file keeps of a gradient."""
    return np.ravel(gradient)[:: -(-gradient.size // KEPT)]


def forward(name: str, t: dict[str, Any]) -> Any:
    """The network in PyTorch."""
    import torch
    import torch.nn.functional as F

    def dense(path: str, x: Any) -> Any:
        return F.linear(x, t[f"{path}/kernel"].T, t[f"{path}/bias"])

    def basis(x: Any, centres: Any, log_widths: Any) -> Any:
        squares = ((x[:, None] - centres) ** 2).sum(-1)
        return torch.exp(-squares / (2 * torch.exp(log_widths) ** 2))

    x = t["x"].flatten(1)
    if name == "FeedForward":
        return dense("output", torch.tanh(dense("hidden", x)))
    if name == "DeepFeedForward":
        for index in (0, 1):
            x = dense(f"hidden_{index}", x)
            x = F.gelu(F.layer_norm(x, x.shape[1:], t[f"norm_{index}/scale"], t[f"norm_{index}/bias"]))
        return dense("output", x)
    if name == "RadialBasis":
        return basis(x, t["centres"], t["log_widths"])
    if name == "RadialBasisNetwork":
        return dense("output", basis(x, t["basis/centres"], t["basis/log_widths"]))
    if name == "XORNet":
        return torch.sigmoid(dense("output", torch.sigmoid(dense("hidden", x))))
    first, second = ("0", "2") if name == "BinaryClassifier" else ("1", "3")
    return dense(second, F.relu(dense(first, x)))


def make() -> Arrays:
    import torch

    found: Arrays = {}
    for seed, name in enumerate(NETWORKS):
        tensors = {path: torch.tensor(value, requires_grad=True) for path, value in drawn(name, seed).items()}
        out = forward(name, tensors)
        (torch.cos(torch.arange(out.numel(), dtype=torch.float32)).reshape(out.shape) * out).sum().backward()
        found |= {f"{name}/seed": np.array(seed), f"{name}/out": out.detach().numpy()}
        found |= {f"{name}/grad/{path}": thinned(tensor.grad.numpy()) for path, tensor in tensors.items()}
    return found


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).parent / "feedforward.npz", **make())
