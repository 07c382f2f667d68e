"""PyTorch's values and gradients of the networks for text: ``python tests/golden/make_text.py`` writes text.npz.

Sentences of 5, 2, 7, 1 and 4 words, padded with 0 to 7, go through four networks:

    literal     the handouts' TextNet: embedding, LSTM, the last of the 7 steps, a linear layer
    lengths     the same on packed sequences, and the last hidden state
    both_ends   a GRU of both directions on packed sequences, and its two last hidden states
    max         the same, and the largest value over the real steps

    tokens, lengths         the sentences
    NAME/params/PATH        parameters by our paths, in our layouts; PyTorch's two biases summed to our one
    NAME/out                logits [B, 1]
    NAME/grad/PATH          gradients of sum(cos(0, 1, …) · out)

Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

WORDS, FEATURES, UNITS = 9, 3, 4
LENGTHS = [5, 2, 7, 1, 4]


class TextNet(torch.nn.Module):
    """The handouts' network, and its sisters by ``summary``."""

    def __init__(self, summary: str):
        super().__init__()
        both = summary in ("both_ends", "max")
        cell = torch.nn.GRU if both else torch.nn.LSTM
        self.summary = summary
        self.embedding = torch.nn.Embedding(WORDS, FEATURES)
        self.recurrent = cell(FEATURES, UNITS, batch_first=True, bidirectional=both)
        self.fc = torch.nn.Linear(UNITS * (1 + both), 1)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        if self.summary == "literal":
            x, _ = self.recurrent(x)
            return self.fc(x[:, -1, :])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, last = self.recurrent(packed)
        if self.summary == "lengths":
            return self.fc(last[0][0])
        if self.summary == "both_ends":
            return self.fc(torch.cat([last[0], last[1]], 1))
        return self.fc(pad_packed_sequence(y, batch_first=True, padding_value=-torch.inf)[0].amax(1))


def direction(arrays: list[np.ndarray], gru: bool, gradients: bool) -> dict[str, np.ndarray]:
    """One direction's weights, or their gradients, in our layout."""
    ih, hh, b_ih, b_hh = arrays
    found = {"kernel": ih.T, "recurrent_kernel": hh.T, "bias": b_ih if gradients else b_ih + b_hh}
    if gru:  # the last third of the second bias stands inside the reset gate's product
        found["recurrent_bias"] = b_hh[2 * UNITS :]
        found["bias"] = b_ih if gradients else b_ih + np.concatenate([b_hh[: 2 * UNITS], np.zeros(UNITS, np.float32)])
    return found


def ours(net: TextNet, gradients: bool) -> dict[str, np.ndarray]:
    """Parameters or gradients by our paths."""

    def array(parameter: torch.Tensor) -> np.ndarray:
        chosen = parameter.grad if gradients else parameter.detach()
        assert chosen is not None
        return chosen.numpy()

    both = net.recurrent.bidirectional
    found = {"embedding/table": array(net.embedding.weight)}
    found |= {"head/kernel": array(net.fc.weight).T, "head/bias": array(net.fc.bias)}
    for prefix, suffix in (("forwards/", ""), ("backwards/", "_reverse")) if both else (("", ""),):
        names = [f"{name}_l0{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        arrays = [array(getattr(net.recurrent, name)) for name in names]
        for name, value in direction(arrays, both, gradients).items():
            found[f"recurrent/{prefix}{name}"] = value
    return found


def make() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, WORDS, (len(LENGTHS), max(LENGTHS))).astype(np.int32)
    tokens[np.arange(max(LENGTHS)) >= np.array(LENGTHS)[:, None]] = 0
    arrays = {"tokens": tokens, "lengths": np.array(LENGTHS, np.int32)}
    for seed, name in enumerate(("literal", "lengths", "both_ends", "max")):
        torch.manual_seed(seed)
        net = TextNet(name)
        out = net(torch.tensor(tokens).long(), torch.tensor(LENGTHS))
        (out[:, 0] * torch.cos(torch.arange(len(LENGTHS)))).sum().backward()
        arrays[f"{name}/out"] = out.detach().numpy()
        arrays |= {f"{name}/params/{path}": value for path, value in ours(net, gradients=False).items()}
        arrays |= {f"{name}/grad/{path}": value for path, value in ours(net, gradients=True).items()}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_name("text.npz"), allow_pickle=False, **make())
