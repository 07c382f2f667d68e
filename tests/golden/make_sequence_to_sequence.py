"""Sequence to sequence as PyTorch computes it: ``python tests/golden/make_sequence_to_sequence.py`` writes an .npz.

A bidirectional GRU over packed sources, tanh of a linear layer on both of its last states, a GRU over the targets, and
"general" attention of its steps (Luong et al. 2015) over the first ``lengths`` of the memory; "plain" is without.

    source, lengths, target             int32[B, S], int32[B], int32[B, T]
    NAME/logits                         [B, T, V]
    NAME/decoder/attention/weights      [B, T, S]
    NAME/weights                        r, so that gradients are those of sum(r · logits)
    NAME/params/PATH, NAME/grad/PATH    by our paths, in our layouts

Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

LENGTHS = [6, 2, 4]
SOURCES, TARGETS, WIDTH, HIDDEN, TIME = 7, 9, 4, 5, 5


class Torch(torch.nn.Module):
    def __init__(self, attention: bool):
        super().__init__()
        self.read = torch.nn.Embedding(SOURCES, WIDTH)
        self.encoder = torch.nn.GRU(WIDTH, HIDDEN, bidirectional=True, batch_first=True)
        self.bridge = torch.nn.Linear(2 * HIDDEN, HIDDEN)
        self.wrote = torch.nn.Embedding(TARGETS, WIDTH)
        self.decoder = torch.nn.GRU(WIDTH, HIDDEN, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, TARGETS)
        if attention:
            self.project = torch.nn.Linear(2 * HIDDEN, HIDDEN, bias=False)
            self.combine = torch.nn.Linear(3 * HIDDEN, HIDDEN, bias=False)

    def forward(self, source: torch.Tensor, lengths: torch.Tensor, target: torch.Tensor):
        packed = pack_padded_sequence(self.read(source), lengths, batch_first=True, enforce_sorted=False)
        memory, last = self.encoder(packed)
        memory = pad_packed_sequence(memory, batch_first=True)[0]
        carry = torch.tanh(self.bridge(torch.cat([last[0], last[1]], -1)))
        y, _ = self.decoder(self.wrote(target), carry[None])
        if not hasattr(self, "project"):
            return self.head(y), None
        scores = y @ self.project(memory).transpose(1, 2)
        real = torch.arange(memory.shape[1])[None] < lengths[:, None]
        attention = torch.softmax(scores.masked_fill(~real[:, None], -torch.inf), -1)
        y = torch.tanh(self.combine(torch.cat([y, attention @ memory], -1)))
        return self.head(y), attention


def cell(arrays: dict, path: str, w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray, total: bool):
    """PyTorch's two biases are summed to our one but in the reset gate's product; of gradients both have the same."""
    both = np.concatenate([b_hh[: 2 * HIDDEN], np.zeros(HIDDEN, np.float32)])
    arrays[f"{path}/kernel"], arrays[f"{path}/recurrent_kernel"] = w_ih.T, w_hh.T
    arrays[f"{path}/bias"] = b_ih + both if total else b_ih
    arrays[f"{path}/recurrent_bias"] = b_hh[2 * HIDDEN :]


def ours(values: dict[str, np.ndarray], total: bool) -> dict[str, np.ndarray]:
    """Parameters, or their gradients, by our paths."""
    arrays: dict[str, np.ndarray] = {
        "encoder/embedding/table": values["read.weight"],
        "encoder/bridge/0/kernel": values["bridge.weight"].T,
        "encoder/bridge/0/bias": values["bridge.bias"],
        "decoder/embedding/table": values["wrote.weight"],
        "decoder/head/kernel": values["head.weight"].T,
        "decoder/head/bias": values["head.bias"],
    }
    if "project.weight" in values:
        arrays["decoder/attention/project/kernel"] = values["project.weight"].T
        arrays["decoder/combine/kernel"] = values["combine.weight"].T
    for path, name, suffix in (
        ("encoder/recurrent/forwards", "encoder", ""),
        ("encoder/recurrent/backwards", "encoder", "_reverse"),
        ("decoder/recurrent", "decoder", ""),
    ):
        parts = (values[f"{name}.{part}_l0{suffix}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        cell(arrays, path, *parts, total=total)
    return arrays


def make() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        "source": rng.integers(SOURCES, size=(len(LENGTHS), max(LENGTHS))).astype(np.int32),
        "lengths": np.array(LENGTHS, np.int32),
        "target": rng.integers(TARGETS, size=(len(LENGTHS), TIME)).astype(np.int32),
    }
    for name in ("attention", "plain"):
        torch.manual_seed(0)
        net = Torch(name == "attention")
        source, lengths, target = (torch.tensor(arrays[key], dtype=torch.int64) for key in arrays if "/" not in key)
        logits, attention = net(source, lengths, target)
        weights = rng.normal(size=tuple(logits.shape)).astype(np.float32)
        (logits * torch.tensor(weights)).sum().backward()
        arrays[f"{name}/logits"], arrays[f"{name}/weights"] = logits.detach().numpy(), weights
        if attention is not None:
            arrays[f"{name}/decoder/attention/weights"] = attention.detach().numpy()
        params = {key: value.detach().numpy() for key, value in net.named_parameters()}
        grads = {key: value.grad.numpy() for key, value in net.named_parameters()}
        arrays |= {f"{name}/params/{path}": value for path, value in ours(params, total=True).items()}
        arrays |= {f"{name}/grad/{path}": value for path, value in ours(grads, total=False).items()}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_name("sequence_to_sequence.npz"), **make())
