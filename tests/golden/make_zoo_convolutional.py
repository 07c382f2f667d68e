"""The convolutional networks and the vision transformer in PyTorch: ``python tests/golden/make_zoo_convolutional.py``.

Writes resnet.npz, unet.npz, convolutional.npz and vision_transformer.npz beside itself. Modules carry the names of our
layers, so that a parameter's name is our path. A network NAME is kept as

    NAME/in/x, NAME/weights         an input, and random weights r of the output, in our layouts
    NAME/params/PATH, state/PATH    its arrays, running statistics among them
    NAME/out, NAME/trained          the output in evaluation, and in training where that differs
    NAME/grad/PATH                  gradients of sum(r * trained) by parameter, and by the input as x; of more than
                                    1,000 numbers only the first 4 of the last axis

Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def sequential(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(collections.OrderedDict(layers))


def conv(inputs: int, features: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, features, size, stride, size // 2, bias=False)


class Padded(nn.Module):
    """Option A: strided, and padded with zero channels."""

    def __init__(self, stride: int, extra: int):
        super().__init__()
        self.step, self.extra = stride, extra

    def forward(self, x):
        return F.pad(x[:, :, :: self.step, :: self.step], (0, 0, 0, 0, self.extra // 2, self.extra // 2))


class Block(nn.Module):
    """A residual block of convolutions (features, size, stride), all but the last followed by ReLU."""

    def __init__(self, inputs: int, convs: list[tuple[int, int, int]], padded: bool = False):
        super().__init__()
        width, self.n, stride = inputs, len(convs), max(s for *_, s in convs)
        for i, (features, size, step) in enumerate(convs, 1):
            setattr(self, f"conv_{i}", conv(width, features, size, step))
            setattr(self, f"norm_{i}", nn.BatchNorm2d(features))
            width = features
        self.shortcut = nn.Identity()
        if stride > 1 or width != inputs:
            project = sequential(conv=conv(inputs, width, 1, stride), norm=nn.BatchNorm2d(width))
            self.shortcut = Padded(stride, width - inputs) if padded else project

    def forward(self, x):
        y = x
        for i in range(1, self.n + 1):
            y = getattr(self, f"norm_{i}")(getattr(self, f"conv_{i}")(y))
            y = F.relu(y) if i < self.n else y
        return F.relu(y + self.shortcut(x))


def basic(inputs: int, features: int, stride: int, padded: bool = False) -> Block:
    return Block(inputs, [(features, 3, stride), (features, 3, 1)], padded)


def bottleneck(inputs: int, features: int, stride: int) -> Block:
    return Block(inputs, [(features, 1, 1), (features, 3, stride), (4 * features, 1, 1)])


class ResNet(nn.Module):
    def __init__(self, stem: nn.Module, width: int, pool: nn.Module, stages: list[nn.Module], out: int):
        super().__init__()
        self.stem, self.norm, self.pool = stem, nn.BatchNorm2d(width), pool
        for i, stage in enumerate(stages, 1):
            setattr(self, f"stage_{i}", stage)
        self.n, self.head = len(stages), nn.Linear(out, 3)

    def forward(self, x):
        x = self.pool(F.relu(self.norm(self.stem(x))))
        for i in range(1, self.n + 1):
            x = getattr(self, f"stage_{i}")(x)
        return self.head(x.mean((2, 3)))


class DoubleConv(nn.Module):
    def __init__(self, inputs: int, features: int, norm: bool):
        super().__init__()
        for i in (1, 2):
            setattr(self, f"conv_{i}", nn.Conv2d(inputs, features, 3, padding=1, bias=not norm))
            setattr(self, f"norm_{i}", nn.BatchNorm2d(features) if norm else nn.Identity())
            inputs = features

    def forward(self, x):
        x = F.relu(self.norm_1(self.conv_1(x)))
        return F.relu(self.norm_2(self.conv_2(x)))


class UNet(nn.Module):
    def __init__(self, channels: int, outputs: int, width: int, depth: int, norm: bool):
        super().__init__()
        self.depth = depth
        widths = [channels, *(width * 2**i for i in range(depth + 1))]
        for i in range(1, depth + 1):
            setattr(self, f"down_{i}", DoubleConv(widths[i - 1], widths[i], norm))
            setattr(self, f"enlarge_{i}", nn.ConvTranspose2d(widths[i + 1], widths[i], 2, 2))
            setattr(self, f"up_{i}", DoubleConv(2 * widths[i], widths[i], norm))
        self.bottom, self.head = DoubleConv(widths[-2], widths[-1], norm), nn.Conv2d(width, outputs, 1)

    def forward(self, x):
        crossing = []
        for i in range(1, self.depth + 1):
            crossing.append(getattr(self, f"down_{i}")(x))
            x = F.max_pool2d(crossing[-1], 2)
        x = self.bottom(x)
        for i in range(self.depth, 0, -1):
            x = torch.cat([crossing[i - 1], getattr(self, f"enlarge_{i}")(x)], 1)
            x = getattr(self, f"up_{i}")(x)
        return self.head(x)


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_1, self.conv_2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.dense_1, self.dense_2, self.head = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        for convolution in (self.conv_1, self.conv_2):
            x = F.avg_pool2d(torch.tanh(convolution(x)), 2)
        x = x.permute(0, 2, 3, 1).flatten(1)  # channels last, as we flatten
        return self.head(torch.tanh(self.dense_2(torch.tanh(self.dense_1(x)))))


class ConvolutionalNet(nn.Module):
    def __init__(self, flattened: int):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 64, 3), nn.Linear(flattened, 3)

    def forward(self, x):
        return self.head(F.max_pool2d(F.relu(self.conv(x)), 2).permute(0, 2, 3, 1).flatten(1))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.queries, self.keys, self.values, self.outputs = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        q, k, v = (f(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.queries, self.keys, self.values))
        return self.outputs(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attention = Attention(width, heads)
        layers = {"expand": nn.Linear(width, 4 * width), "gelu": nn.GELU(), "contract": nn.Linear(4 * width, width)}
        self.network = sequential(**layers)

    def forward(self, x):
        x = x + self.attention(self.norm_1(x))
        return x + self.network(self.norm_2(x))


class VisionTransformer(nn.Module):
    def __init__(self, patch: int, width: int, depth: int, heads: int, patches: int, token: bool):
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.token, self.positions = token, nn.Parameter(torch.randn(patches + token, width))
        if token:
            self.class_token = nn.Parameter(torch.randn(width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, 3)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        if self.token:
            x = torch.cat([self.class_token.expand(len(x), 1, -1), x], 1)
        x = self.norm(self.blocks(x + self.positions))
        return self.head(x[:, 0] if self.token else x.mean(1))


# Files, and in each the networks by name, with the shape of their input.
NETWORKS = {
    "resnet": {
        "basic": (lambda: ResNet(
            nn.Conv2d(3, 4, 7, 2, 3, bias=False), 4, nn.MaxPool2d(3, 2, 1),
            [nn.Sequential(basic(4, 4, 1)), nn.Sequential(basic(4, 8, 2))], 8,
        ), (2, 18, 16, 3)),
        "padded": (lambda: ResNet(
            conv(3, 4, 3), 4, nn.Identity(),
            [nn.Sequential(basic(4, 8, 1, True), basic(8, 8, 1)), nn.Sequential(basic(8, 16, 2, True))], 16,
        ), (2, 7, 6, 3)),
        "bottleneck": (lambda: ResNet(
            conv(3, 4, 3), 4, nn.Identity(),
            [nn.Sequential(bottleneck(4, 2, 1)), nn.Sequential(bottleneck(8, 4, 2))], 16,
        ), (2, 6, 6, 3)),
    },
    "unet": {
        "plain": (lambda: UNet(3, 2, 2, 2, norm=False), (2, 8, 12, 3)),
        "norm": (lambda: UNet(1, 3, 2, 1, norm=True), (2, 6, 4, 1)),
    },
    "convolutional": {
        "lenet": (LeNet, (1, 28, 28, 1)),
        "handout": (lambda: ConvolutionalNet(64 * 2 * 3), (2, 7, 8, 3)),
    },
    "vision_transformer": {
        "token": (lambda: VisionTransformer(4, 8, 2, 2, 6, token=True), (2, 8, 12, 3)),
        "mean": (lambda: VisionTransformer(4, 8, 2, 2, 6, token=False), (2, 8, 12, 3)),
    },
}  # fmt: skip


def arrays(module: nn.Module, gradients: bool) -> dict[str, np.ndarray]:
    """Parameters or their gradients by our paths, in our layouts; copies of a block along one leading axis."""
    found, copies = {}, collections.defaultdict(list)
    for name, parameter in module.named_parameters():
        value = (parameter.grad if gradients else parameter.detach()).numpy()
        *parents, leaf = name.split(".")
        owner = module.get_submodule(".".join(parents))
        if isinstance(owner, (nn.Conv2d, nn.ConvTranspose2d)) and leaf == "weight":
            value = np.moveaxis(value, (2, 3), (0, 1))  # [h, w, out, in], or [h, w, in, out] of the transpose
            value = value if isinstance(owner, nn.ConvTranspose2d) else np.swapaxes(value, 2, 3)
        elif isinstance(owner, nn.Linear) and leaf == "weight":
            value = value.T
        if leaf == "weight":
            leaf = "scale" if isinstance(owner, (nn.BatchNorm2d, nn.LayerNorm)) else "kernel"
        if parents[:1] == ["blocks"]:
            copies["/".join(["blocks", *parents[2:], leaf])].append(value)
        else:
            found["/".join([*parents, leaf])] = value
    return found | {path: np.stack(values) for path, values in copies.items()}


def case(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    rng, module = np.random.default_rng(0), build()
    state = {}
    for path, layer in module.named_modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            at = path.replace(".", "/")
            state |= {f"{at}/{ours}": layer.get_buffer(f"running_{ours}").numpy().copy() for ours in ("mean", "var")}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_((parameter * 64).round() / 64)  # a few bits each, so that the file is small
    x = torch.tensor(rng.normal(size=shape).astype(np.float32), requires_grad=True)

    def run() -> torch.Tensor:
        y = module(x.permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1) if y.ndim == 4 else y

    out = module.eval() and run()
    trained = module.train() and run()
    weights = rng.normal(size=tuple(out.shape)).astype(np.float32)
    (trained * torch.tensor(weights)).sum().backward()
    found = {"in/x": x, "out": out, "grad/x": x.grad}
    found = {key: value.detach().numpy() for key, value in found.items()} | {"weights": weights}
    if state:
        found["trained"] = trained.detach().numpy()
    grads = {path: value[..., :4] if value.size > 1000 else value for path, value in arrays(module, True).items()}
    for kind, tree in {"params": arrays(module, False), "state": state, "grad": grads}.items():
        found |= {f"{kind}/{path}": value for path, value in tree.items()}
    return found


if __name__ == "__main__":
    for file, networks in NETWORKS.items():
        cases = {f"{name}/{key}": value for name, network in networks.items() for key, value in case(*network).items()}
        np.savez_compressed(Path(__file__).parent / f"{file}.npz", **cases)
