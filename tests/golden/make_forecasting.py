"""PyTorch's values and gradients of forecasters: ``python tests/golden/make_forecasting.py`` writes forecasting.npz.

Three windows of 5 steps of 2 columns, and 4 steps ahead of column 1:

    linear       a linear map of the flattened window
    rnn, lstm    the same, and a linear map of the recurrence's last output added to it
    gru          the same, in differences from the window's last value of column 1

    windows              [3, 5, 2]
    NAME/params/PATH     parameters by our paths, in our layouts; PyTorch's two biases summed to our one
    NAME/out             forecasts [3, 4]
    NAME/grad/PATH       gradients of sum(cos(0, 1, …) · out), by the parameters and, as ``windows``, by the windows

Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

BATCH, TIME, COLUMNS, HORIZON, UNITS, TARGET = 3, 5, 2, 4, 3, 1
CELLS = {"linear": None, "rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


class Forecaster(torch.nn.Module):
    """One of the four by name."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name
        self.linear = torch.nn.Linear(TIME * COLUMNS, HORIZON)
        if cell := CELLS[name]:
            self.recurrent = cell(COLUMNS, UNITS, batch_first=True)
            self.correction = torch.nn.Linear(UNITS, HORIZON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = x[:, -1:, TARGET] if self.name == "gru" else torch.zeros(len(x), 1)
        x = torch.stack([x[..., 0], x[..., 1] - last], dim=-1)
        out = self.linear(x.reshape(len(x), -1)) + last
        return out if self.name == "linear" else out + self.correction(self.recurrent(x)[0][:, -1])


def ours(net: Forecaster, gradients: bool) -> dict[str, np.ndarray]:
    """Parameters or gradients by our paths."""
    found = {
        name: (parameter.grad if gradients else parameter.detach()).numpy()  # pyright: ignore[reportOptionalMemberAccess]
        for name, parameter in net.named_parameters()
    }
    linear = "" if net.name == "linear" else "linear/"
    tree = {f"{linear}map/kernel": found["linear.weight"].T, f"{linear}map/bias": found["linear.bias"]}
    if net.name != "linear":
        tree |= {"correction/kernel": found["correction.weight"].T, "correction/bias": found["correction.bias"]}
        first, second = (found[f"recurrent.bias_{which}_l0"] for which in ("ih", "hh"))
        if net.name == "gru":  # the last third of the second stands inside the reset gate's product
            tree["recurrent/recurrent_bias"] = second[2 * UNITS :]
            second = np.concatenate([second[: 2 * UNITS], np.zeros(UNITS, np.float32)])
        tree["recurrent/bias"] = first if gradients else first + second
        tree["recurrent/kernel"] = found["recurrent.weight_ih_l0"].T
        tree["recurrent/recurrent_kernel"] = found["recurrent.weight_hh_l0"].T
    prefix = "forecaster/" if net.name == "gru" else ""
    return {prefix + path: value for path, value in tree.items()}


def make() -> dict[str, np.ndarray]:
    windows = np.random.default_rng(0).normal(size=(BATCH, TIME, COLUMNS)).astype(np.float32)
    arrays = {"windows": windows}
    for seed, name in enumerate(CELLS):
        torch.manual_seed(seed)
        net = Forecaster(name)
        x = torch.tensor(windows, requires_grad=True)
        out = net(x)
        (out * torch.cos(torch.arange(out.numel())).reshape(out.shape)).sum().backward()
        arrays[f"{name}/out"] = out.detach().numpy()
        arrays[f"{name}/grad/windows"] = x.grad.numpy()  # pyright: ignore[reportOptionalMemberAccess]
        arrays |= {f"{name}/params/{path}": value for path, value in ours(net, gradients=False).items()}
        arrays |= {f"{name}/grad/{path}": value for path, value in ours(net, gradients=True).items()}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_name("forecasting.npz"), allow_pickle=False, **make())
