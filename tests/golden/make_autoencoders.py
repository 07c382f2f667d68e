"""Values and gradients of PyTorch for the autoencoders and their losses: ``python tests/golden/make_autoencoders.py``.

Writes autoencoders.npz beside itself. Computed in float64 from float32 inputs. Of a network NAME it keeps

    NAME/in/x, NAME/in/noise, NAME/mask      what it was called with, and the weights of the examples
    NAME/params/PATH, NAME/grad/PATH         its parameters, and the gradients of the loss
    NAME/out/I                               its outputs
    NAME/loss, NAME/none                     the weighted mean of the loss, and each example's where it has one

The distributions are those of torch.distributions. Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

Arrays = dict[str, np.ndarray]
Forward = Callable[[dict[str, Tensor], Tensor], Tensor]
Loss = Callable[[tuple[Tensor, ...], Tensor, Tensor], tuple[Tensor, Tensor | None]]

rng = np.random.RandomState(2024)
cases: Arrays = {}
MASK = np.array([1.0, 0.5, 2.0, 0.0, 1.0], np.float32)

DENSE_IMAGE, IMAGE = (4, 4, 2), (8, 8, 1)
DENSE = {"encoder/1": (32, 5), "encoder/3": (5, 3), "decoder/0": (3, 5), "decoder/2": (5, 32)}
CONVOLUTIONAL = {
    "encoder/1": (3, 3, 1, 2),
    "encoder/3": (3, 3, 2, 4),
    "encoder/6": (16, 3),
    "decoder/0": (3, 16),
    "decoder/3": (3, 3, 4, 2),
    "decoder/5": (3, 3, 2, 1),
}


def dense(p: dict[str, Tensor], path: str, x: Tensor) -> Tensor:
    return F.linear(x, p[f"{path}/kernel"].T, p[f"{path}/bias"])


def halve(p: dict[str, Tensor], path: str, x: Tensor) -> Tensor:
    """A convolution of stride 2: of the one row and column that even sides lack, it pads the end."""
    return F.conv2d(F.pad(x, (0, 1, 0, 1)), p[f"{path}/kernel"].permute(3, 2, 0, 1), p[f"{path}/bias"], stride=2)


def double(p: dict[str, Tensor], path: str, x: Tensor) -> Tensor:
    """Twice the sides, as `halve` divides them: what reaches beyond the end is cut off."""
    kernel = p[f"{path}/kernel"].permute(2, 3, 0, 1)
    return F.conv_transpose2d(x, kernel, p[f"{path}/bias"], stride=2)[..., :-1, :-1]


def dense_encoder(p: dict[str, Tensor], x: Tensor) -> Tensor:
    return dense(p, "encoder/3", F.relu(dense(p, "encoder/1", x.flatten(1))))


def dense_decoder(p: dict[str, Tensor], code: Tensor) -> Tensor:
    return dense(p, "decoder/2", F.relu(dense(p, "decoder/0", code))).reshape(-1, *DENSE_IMAGE)


def convolutional_encoder(p: dict[str, Tensor], x: Tensor) -> Tensor:
    x = F.relu(halve(p, "encoder/3", F.relu(halve(p, "encoder/1", x.permute(0, 3, 1, 2)))))
    return dense(p, "encoder/6", x.permute(0, 2, 3, 1).flatten(1))


def convolutional_decoder(p: dict[str, Tensor], code: Tensor) -> Tensor:
    x = F.relu(dense(p, "decoder/0", code).reshape(-1, 2, 2, 4).permute(0, 3, 1, 2))
    return double(p, "decoder/5", F.relu(double(p, "decoder/3", x))).permute(0, 2, 3, 1)


def weighted(losses: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return (mask * losses).sum() / mask.sum(), mask * losses


def squared(outputs: tuple[Tensor, ...], x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return weighted(((outputs[0] - x) ** 2).flatten(1).mean(1), mask)


def sparse(outputs: tuple[Tensor, ...], x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
    code = outputs[1]
    mean = (mask[:, None] * code).sum(0) / mask.sum()
    divergence = kl_divergence(Bernoulli(torch.tensor(0.1, dtype=mean.dtype)), Bernoulli(mean)).sum()
    return squared(outputs, x, mask)[0] + 0.5 * divergence + 0.25 * weighted(code.abs().sum(1), mask)[0], None


def elbo(beta: float, likelihood: Callable[[Tensor], Normal | Bernoulli]) -> Loss:
    def loss(outputs: tuple[Tensor, ...], x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y, mean, log_variance = outputs
        nll = -Independent(likelihood(y), 3).log_prob(x)
        prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
        divergence = kl_divergence(Normal(mean, torch.exp(log_variance / 2)), prior).sum(1)
        return weighted(nll + beta * divergence, mask)

    return loss


def add(name: str, shapes: dict[str, tuple[int, ...]], kind: str, x: np.ndarray, loss: Loss) -> None:
    """``kind`` says what becomes of the code: itself, a sigmoid of it, or a draw from it."""
    params = {}
    for path, shape in shapes.items():
        if kind == "variational" and path in ("encoder/3", "encoder/6") and len(shape) == 2:
            shape = (shape[0], 2 * shape[1])
        params[f"{path}/kernel"] = rng.normal(size=shape, scale=1 / math.sqrt(math.prod(shape[:-1])))
        params[f"{path}/bias"] = rng.normal(size=shape[-1:], scale=0.3)
    params = {path: value.astype(np.float32) for path, value in params.items()}
    if kind == "sparse":  # our sigmoid follows the encoder in a chain
        renamed = {path: path.replace("encoder/", "encoder/0/") for path in params}
    else:
        renamed = {path: path for path in params}
    p = {path: torch.tensor(value, dtype=torch.float64, requires_grad=True) for path, value in params.items()}
    encoder, decoder = (
        (dense_encoder, dense_decoder) if shapes is DENSE else (convolutional_encoder, convolutional_decoder)
    )
    inputs, mask = torch.tensor(x, dtype=torch.float64), torch.tensor(MASK, dtype=torch.float64)
    code = encoder(p, inputs)
    if kind == "sparse":
        code = torch.sigmoid(code)
        outputs = (decoder(p, code), code)
    elif kind == "variational":
        mean, log_variance = code.chunk(2, 1)
        noise = rng.normal(size=mean.shape).astype(np.float32)
        cases[f"{name}/in/noise"] = noise
        z = mean + torch.exp(log_variance / 2) * torch.tensor(noise, dtype=torch.float64)
        outputs = (decoder(p, z), mean, log_variance)
    else:
        outputs = (decoder(p, code),)
    value, none = loss(outputs, inputs, mask)
    value.backward()
    cases[f"{name}/in/x"], cases[f"{name}/mask"], cases[f"{name}/loss"] = x, MASK, value.detach().numpy()
    if none is not None:
        cases[f"{name}/none"] = none.detach().numpy()
    cases.update({f"{name}/out/{index}": out.detach().numpy() for index, out in enumerate(outputs)})
    for path, tensor in p.items():
        assert tensor.grad is not None
        cases[f"{name}/params/{renamed[path]}"], cases[f"{name}/grad/{renamed[path]}"] = (
            params[path],
            tensor.grad.numpy(),
        )


def grey(*shape: int) -> np.ndarray:
    return rng.uniform(size=(len(MASK), *shape)).astype(np.float32)


def binary(*shape: int) -> np.ndarray:
    return rng.binomial(1, 0.3, (len(MASK), *shape)).astype(np.float32)


if __name__ == "__main__":
    add("dense", DENSE, "plain", grey(*DENSE_IMAGE), squared)
    add("convolutional", CONVOLUTIONAL, "plain", grey(*IMAGE), squared)
    add("sparse dense", DENSE, "sparse", grey(*DENSE_IMAGE), sparse)
    add("sparse convolutional", CONVOLUTIONAL, "sparse", grey(*IMAGE), sparse)
    bernoulli = elbo(1.5, lambda y: Bernoulli(logits=y))
    normal = elbo(1.0, lambda y: Normal(y, torch.full_like(y, 0.5)))
    add("variational dense", DENSE, "variational", binary(*DENSE_IMAGE), bernoulli)
    add("variational convolutional", CONVOLUTIONAL, "variational", grey(*IMAGE), normal)
    kept = {name: value.astype(np.float32) for name, value in cases.items()}
    np.savez_compressed(Path(__file__).parent / "autoencoders.npz", **kept)  # pyright: ignore[reportArgumentType]
