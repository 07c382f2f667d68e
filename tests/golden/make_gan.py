"""PyTorch's scores and gradients of small GANs, in float64: ``python tests/golden/make_gan.py``.

Writes gan.npz beside itself: ``real``, ``noise``, and for the game NAME, "GAN" or "WassersteinGAN",

    NAME/params/PATH            by the paths of our networks
    NAME/OUTPUT                 scores and slopes by the names of our outputs
    NAME/PLAYER/PATH            the gradient of a player's loss by its own parameters
    NAME/state/PATH             the running mean of each batch norm after one training pass

The first is in training, the second, whose critic has no norm, in evaluation, with the slope halfway between real and
made images. Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

LATENT, WIDTH, SIZE, BATCH = 3, 2, 2, 4
SHAPES = {
    "generator/start/0/kernel": (LATENT, SIZE * SIZE * 2 * WIDTH),
    "generator/norm_0/scale": (2 * WIDTH,),
    "generator/norm_0/bias": (2 * WIDTH,),
    "generator/features/kernel": (4, 4, 2 * WIDTH, WIDTH),
    "generator/norm_1/scale": (WIDTH,),
    "generator/norm_1/bias": (WIDTH,),
    "generator/image/kernel": (4, 4, WIDTH, 1),
    "generator/image/bias": (1,),
    "discriminator/down_0/kernel": (4, 4, 1, WIDTH),
    "discriminator/down_0/bias": (WIDTH,),
    "discriminator/down_1/kernel": (4, 4, WIDTH, 2 * WIDTH),
    "discriminator/score/1/kernel": (SIZE * SIZE * 2 * WIDTH, 1),
    "discriminator/score/1/bias": (1,),
}
NORM = {"discriminator/norm_1/scale": (2 * WIDTH,), "discriminator/norm_1/bias": (2 * WIDTH,)}
BIAS = {"discriminator/down_1/bias": (2 * WIDTH,)}
Tensors = dict[str, torch.Tensor]


class Networks:
    """Both networks on images ``[B, C, H, W]``; each batch norm keeps what its running mean becomes."""

    def __init__(self, params: Tensors, train: bool):
        self.p, self.train, self.means = params, train, {}

    def norm(self, path: str, x: torch.Tensor) -> torch.Tensor:
        mean = self.means.get(path, torch.zeros(x.shape[1], dtype=x.dtype))
        var = torch.ones(x.shape[1], dtype=x.dtype)
        y = F.batch_norm(x, mean, var, self.p[f"{path}/scale"], self.p[f"{path}/bias"], self.train, 0.1, 1e-5)
        self.means[path] = mean  # moved in place
        return y

    def generate(self, noise: torch.Tensor) -> torch.Tensor:
        h = (noise @ self.p["generator/start/0/kernel"]).reshape(-1, SIZE, SIZE, 2 * WIDTH).permute(0, 3, 1, 2)
        h = F.relu(self.norm("generator/norm_0", h))
        up, image = (self.p[f"generator/{name}/kernel"].permute(2, 3, 0, 1) for name in ("features", "image"))
        h = F.relu(self.norm("generator/norm_1", F.conv_transpose2d(h, up, stride=2, padding=1)))
        return torch.tanh(F.conv_transpose2d(h, image, self.p["generator/image/bias"], stride=2, padding=1))

    def score(self, x: torch.Tensor) -> torch.Tensor:
        first, second = (self.p[f"discriminator/down_{index}/kernel"].permute(3, 2, 0, 1) for index in (0, 1))
        h = F.leaky_relu(F.conv2d(x, first, self.p["discriminator/down_0/bias"], stride=2, padding=1), 0.2)
        h = F.conv2d(h, second, self.p.get("discriminator/down_1/bias"), stride=2, padding=1)
        h = F.leaky_relu(self.norm("discriminator/norm_1", h) if "discriminator/norm_1/scale" in self.p else h, 0.2)
        flat = h.permute(0, 2, 3, 1).flatten(1)
        return (flat @ self.p["discriminator/score/1/kernel"] + self.p["discriminator/score/1/bias"])[:, 0]


def game(name: str, shapes: dict[str, Any], real: torch.Tensor, noise: torch.Tensor) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(name))
    drawn = {path: rng.normal(scale=0.5, size=shape).astype(np.float32) for path, shape in shapes.items()}
    params = {path: torch.tensor(value, dtype=torch.float64) for path, value in drawn.items()}
    for tensor in params.values():
        tensor.requires_grad_()
    networks = Networks(params, train=name == "GAN")
    images = networks.generate(noise)
    outputs = {"real": networks.score(real), "fake": networks.score(images)}
    if name == "GAN":
        passing = F.softplus(-outputs["fake"]).mean()
        judging = (F.softplus(-outputs["real"]) + F.softplus(outputs["fake"])).mean()
    else:
        between = (real + images) / 2
        gradient = torch.autograd.grad(networks.score(between).sum(), between, create_graph=True)[0]
        outputs["slope"] = gradient.flatten(1).norm(dim=1)
        passing = -outputs["fake"].mean()
        judging = (outputs["fake"] - outputs["real"] + 10 * (outputs["slope"] - 1) ** 2).mean()
    found = {f"{name}/{key}": value for key, value in outputs.items()}
    found |= {f"{name}/params/{path}": tensor for path, tensor in params.items()}
    for player, loss in (("generator", passing), ("discriminator", judging)):
        own = {path: tensor for path, tensor in params.items() if path.startswith(player)}
        grads = torch.autograd.grad(loss, list(own.values()), retain_graph=True)
        found |= {f"{name}/{player}/{path}": grad for path, grad in zip(own, grads, strict=True)}
    if networks.train:
        found |= {f"{name}/state/{path}/mean": mean for path, mean in networks.means.items()}
    return {key: value.detach().numpy().astype(np.float32) for key, value in found.items()}


def make() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    real = rng.uniform(-0.2, 1, size=(BATCH, 4 * SIZE, 4 * SIZE, 1)).astype(np.float32)
    noise = rng.normal(size=(BATCH, LATENT)).astype(np.float32)
    given = torch.tensor(real, dtype=torch.float64).permute(0, 3, 1, 2), torch.tensor(noise, dtype=torch.float64)
    found = {"real": real, "noise": noise}
    return found | game("GAN", SHAPES | NORM, *given) | game("WassersteinGAN", SHAPES | BIAS, *given)


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).parent / "gan.npz", **make())
