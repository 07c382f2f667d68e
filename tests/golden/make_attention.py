"""PyTorch's attention, values and gradients: ``python tests/golden/make_attention.py``.

Writes attention.npz beside itself: cases of `jdl.nn.functional.attention` against ``scaled_dot_product_attention`` in
the form of `make_functional.py`, and of `jdl.nn.Attention` against ``MultiheadAttention``:

    layer/NAME/in/ARGUMENT      x, and context, mask or lengths where the case has them
    layer/NAME/params/PATH      queries/kernel and the others, in our layout
    layer/NAME/out, weights     PyTorch's output and random weights r of it
    layer/NAME/grad/...         gradients of sum(r * output) by the names of inputs and parameters

Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from make_functional import Cases, add, normal

B, T, S, H, D, E = 2, 5, 7, 2, 4, 3


def sees(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A random mask in which every query sees its first key at least."""
    mask = rng.random(shape) < 0.6
    mask[..., 0] = True
    return mask


def functions(cases: Cases) -> None:
    rng = np.random.default_rng(0)
    masks = {
        "plain": {},
        "scale": {"scale": 0.3},
        "mask_2": {"mask": sees(rng, T, S)},
        "mask_3": {"mask": sees(rng, B, T, S)},
        "mask_4": {"mask": sees(rng, B, H, T, S)},
        "causal": {"causal": True},
    }
    for name, options in masks.items():
        keys = T if name == "causal" else S
        inputs = {
            "query": normal(rng, B, T, H, D),
            "key": normal(rng, B, keys, H, D),
            "value": normal(rng, B, keys, H, E),
        }
        if "mask" in options:
            inputs["mask"] = options.pop("mask")

        def call(query, key, value, mask=None, *, o=options):
            if mask is not None and mask.ndim == 3:
                mask = mask[:, None]
            q, k, v = (x.transpose(1, 2) for x in (query, key, value))
            y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=o.get("causal", False), scale=o.get("scale"))
            return y.transpose(1, 2)

        add(cases, name, "attention", options, inputs, call)


def layers(cases: Cases) -> None:
    rng, width, context_width = np.random.default_rng(1), 8, 6
    for name in ("self", "causal", "lengths", "cross"):
        torch.manual_seed(0)
        apart = {"kdim": context_width, "vdim": context_width} if name == "cross" else {}
        module = torch.nn.MultiheadAttention(width, H, batch_first=True, **apart)
        x = torch.tensor(normal(rng, B, T, width), requires_grad=True)
        context = torch.tensor(normal(rng, B, S, context_width), requires_grad=True) if apart else x
        torch.nn.init.normal_(module.in_proj_bias)
        torch.nn.init.normal_(module.out_proj.bias)
        lengths, mask = np.array([3, T if name == "lengths" else S], np.int32), None
        padding = torch.arange(context.shape[1])[None] >= torch.tensor(lengths)[:, None]
        if name == "causal":
            mask = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
        padded = name in ("lengths", "cross")
        out, _ = module(x, context, context, key_padding_mask=padding if padded else None, attn_mask=mask)
        weights = normal(rng, *out.shape)
        (out * torch.tensor(weights)).sum().backward()

        at = f"layer/{name}"
        cases |= {f"{at}/in/x": x.detach().numpy(), f"{at}/grad/x": x.grad.numpy()}
        cases |= {f"{at}/out": out.detach().numpy(), f"{at}/weights": weights}
        if padded:
            cases[f"{at}/in/lengths"] = lengths
        if name == "cross":
            cases |= {f"{at}/in/context": context.detach().numpy(), f"{at}/grad/context": context.grad.numpy()}
        for kind in ("params", "grad"):
            for path, value in parameters(module, kind == "grad").items():
                cases[f"{at}/{kind}/{path}"] = value


def parameters(module: torch.nn.MultiheadAttention, gradients: bool) -> Cases:
    """Its parameters, or their gradients, by our paths."""

    def read(p: torch.Tensor) -> torch.Tensor:
        return p.grad if gradients else p.detach()

    if module.in_proj_weight is None:
        kernels = [read(p) for p in (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)]
    else:
        kernels = read(module.in_proj_weight).chunk(3)
    found = {}
    for name, kernel, bias in zip(
        ("queries", "keys", "values", "outputs"),
        [*kernels, read(module.out_proj.weight)],
        [*read(module.in_proj_bias).chunk(3), read(module.out_proj.bias)],
        strict=True,
    ):
        found |= {f"{name}/kernel": kernel.T.numpy(), f"{name}/bias": bias.numpy()}
    return found


if __name__ == "__main__":
    cases = Cases()
    functions(cases)
    layers(cases)
    np.savez_compressed(Path(__file__).parent / "attention.npz", **cases)
