"""PyTorch's recurrent networks on packed sequences: ``python tests/golden/make_recurrent.py`` writes recurrent.npz.

For each cell, two layers of both directions run over sequences of 7, 3, 1 and 5 steps, from a first carry. NAME is the
cell's; parameters and their gradients have our paths and layouts.

    NAME/params/PATH    PyTorch's two biases are summed to our one, but for the GRU's in the reset gate's product
    NAME/carry/i        the first carry, leaf by leaf of ours: layer by layer, forwards and backwards, h before c
    NAME/out            outputs [B, T, 2H], 0 at the padding
    NAME/last/i         the last carry, in the order of the first
    NAME/weights        r, so that gradients are those of sum(r · out) + the sum over i of sum(cos(i + 1) · last_i)
    NAME/grad/PATH, NAME/grad_x, NAME/grad_carry/i

Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

LENGTHS = [7, 3, 1, 5]
BATCH, TIME, WIDTH, HIDDEN = 4, 7, 5, 6
KINDS = {"RNNCell": torch.nn.RNN, "LSTMCell": torch.nn.LSTM, "GRUCell": torch.nn.GRU}


def ours(kind: str, ih: np.ndarray, hh: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray, total: bool) -> dict:
    """One direction's weights in our layout; of gradients the two biases have the same, so they are not summed."""
    found = {"kernel": ih.T, "recurrent_kernel": hh.T, "bias": b_ih + b_hh if total else b_ih}
    if kind == "GRUCell":
        both = np.concatenate([b_hh[: 2 * HIDDEN], np.zeros(HIDDEN, np.float32)])
        found["bias"] = b_ih + both if total else b_ih
        found["recurrent_bias"] = b_hh[2 * HIDDEN :]
    return found


def make() -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    arrays["x"] = rng.normal(size=(BATCH, TIME, WIDTH)).astype(np.float32)
    arrays["lengths"] = np.array(LENGTHS, np.int32)
    for kind, build in KINDS.items():
        torch.manual_seed(0)
        net = build(WIDTH, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
        x = torch.tensor(arrays["x"], requires_grad=True)
        parts = ("h", "c") if kind == "LSTMCell" else ("h",)
        first = [torch.randn(4, BATCH, HIDDEN, requires_grad=True) for _ in parts]
        packed = pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
        out, last = net(packed, tuple(first) if len(parts) == 2 else first[0])
        last = list(last) if len(parts) == 2 else [last]
        out = pad_packed_sequence(out, batch_first=True)[0]
        weights = rng.normal(size=out.shape).astype(np.float32)
        leaves = [part[layer] for layer in range(4) for part in last]
        loss = (out * torch.tensor(weights)).sum() + sum(math.cos(i + 1) * y.sum() for i, y in enumerate(leaves))
        loss.backward()
        arrays[f"{kind}/out"], arrays[f"{kind}/weights"] = out.detach().numpy(), weights
        arrays[f"{kind}/grad_x"] = x.grad.numpy()
        for i, leaf in enumerate(leaves):
            arrays[f"{kind}/last/{i}"] = leaf.detach().numpy()
        for i, (layer, part) in enumerate((layer, part) for layer in range(4) for part in first):
            arrays[f"{kind}/carry/{i}"] = part[layer].detach().numpy()
            arrays[f"{kind}/grad_carry/{i}"] = part.grad[layer].numpy()
        for layer in range(2):
            for direction, suffix in (("forwards", ""), ("backwards", "_reverse")):
                names = [f"{name}_l{layer}{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                values = [getattr(net, name).detach().numpy() for name in names]
                grads = [getattr(net, name).grad.numpy() for name in names]
                for name, value in ours(kind, *values, total=True).items():
                    arrays[f"{kind}/params/{layer}/{direction}/{name}"] = value
                for name, value in ours(kind, *grads, total=False).items():
                    arrays[f"{kind}/grad/{layer}/{direction}/{name}"] = value
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_name("recurrent.npz"), **make())
