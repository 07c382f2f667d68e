"""Values and gradients of PyTorch for every loss of `jdl.losses`: ``python tests/golden/make_losses.py``.

Writes losses.npz beside itself. Computed in float64 from float32 inputs. A case NAME is kept as

    NAME/call       JSON: [name of the loss, its keyword options]
    NAME/outputs/I  the outputs, one array or several; targets/I and mask likewise (targets/0 may be missing)
    NAME/none       m·l of each example or token, m the mask
    NAME/mean       Σ m·l / Σ m
    NAME/grad/I     the gradient of the mean by each of the outputs that are floating
    NAME/plain      the mean without a mask

Needs torch==2.13.0; the tests that read the file do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Tensor = torch.Tensor
LossOf = Callable[..., Tensor]  # (outputs..., targets..., mask) -> one loss for each entry of the mask

rng = np.random.default_rng(2024)
cases: dict[str, np.ndarray] = {}


def add(
    name: str,
    loss: str,
    options: dict[str, Any],
    outputs: list[np.ndarray],
    targets: list[np.ndarray],
    mask: np.ndarray,
    call: LossOf,
    counted: Callable[[Tensor], Tensor] = lambda mask: mask,
) -> None:
    """``counted`` turns the mask into the weights of the losses, where these are not the same."""

    def tensor(x: np.ndarray) -> Tensor:
        return torch.tensor(x, dtype=torch.float64) if x.dtype == np.float32 else torch.tensor(x)

    given = [tensor(x) for x in outputs]
    leaves = [x.requires_grad_() for x in given if x.is_floating_point()]
    wanted, weights = [tensor(x) for x in targets], tensor(mask)

    weighted = counted(weights) * call(*given, *wanted, weights)
    mean = weighted.sum() / counted(weights).sum()
    grads = torch.autograd.grad(mean, leaves)
    plain = call(*given, *wanted, torch.ones_like(weights)).mean()

    cases[f"{name}/call"] = np.array(json.dumps([loss, options]))
    cases[f"{name}/mask"] = mask
    for role, arrays in (("outputs", outputs), ("targets", targets), ("grad", [g.numpy() for g in grads])):
        for index, array in enumerate(arrays):
            cases[f"{name}/{role}/{index}"] = array.astype(np.float32) if array.dtype == np.float64 else array
    for key, value in (("none", weighted), ("mean", mean), ("plain", plain)):
        cases[f"{name}/{key}"] = value.detach().numpy().astype(np.float32)


def normal(*shape: int, scale: float = 2.0) -> np.ndarray:
    return (scale * rng.normal(size=shape)).astype(np.float32)


def labels(classes: int, *shape: int) -> np.ndarray:
    return rng.integers(0, classes, shape).astype(np.int32)


def probabilities(*shape: int) -> np.ndarray:
    return rng.uniform(0.05, 0.95, shape).astype(np.float32)


def simplex(*shape: int) -> np.ndarray:
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


def weights(*shape: int) -> np.ndarray:
    """Sample weights, about a quarter of them 0."""
    return (rng.uniform(0.2, 2.0, shape) * (rng.uniform(size=shape) > 0.25)).astype(np.float32)


def features(losses: Tensor, mask: Tensor) -> Tensor:
    """The mean over the axes behind those of the mask."""
    return losses.reshape(*mask.shape, -1).mean(-1)


def classes_last(call: LossOf) -> LossOf:
    """PyTorch wants the classes on axis 1."""
    return lambda x, t, m: call(x.movedim(-1, 1), t.movedim(-1, 1) if t.is_floating_point() else t.long())


def regression() -> None:
    shapes = {
        "": ((6,), (6,)),
        "_features": ((6, 3), (6,)),
        "_tokens": ((3, 4, 2), (3, 4)),
        "_images": ((3, 4, 2), (3,)),
    }
    for suffix, (shape, masked) in shapes.items():
        x, t, m = normal(*shape), normal(*shape), weights(*masked)
        add(f"mse{suffix}", "mse", {}, [x], [t], m, lambda x, t, m: features(F.mse_loss(x, t, reduction="none"), m))
        add(f"mae{suffix}", "mae", {}, [x], [t], m, lambda x, t, m: features(F.l1_loss(x, t, reduction="none"), m))
        for delta in (1.0, 0.5, 3.0):

            def huber(x: Tensor, t: Tensor, m: Tensor, delta: float = delta) -> Tensor:
                return features(F.huber_loss(x, t, reduction="none", delta=delta), m)

            add(f"huber_{delta}{suffix}", "huber", {"delta": delta}, [x], [t], m, huber)


def binary() -> None:
    shapes = {"": ((8,), (8,), (8,)), "_column": ((8, 1), (8,), (8,)), "_labels": ((6, 3), (6, 3), (6,))}
    for suffix, (shape, target_shape, masked) in shapes.items():
        x, t, m = normal(*shape), labels(2, *target_shape), weights(*masked)
        for smoothing in (0.0, 0.2):

            def bce(x: Tensor, t: Tensor, m: Tensor, smoothing: float = smoothing) -> Tensor:
                t = (1 - smoothing) * t.double() + smoothing / 2
                return features(F.binary_cross_entropy_with_logits(x.reshape(t.shape), t, reduction="none"), m)

            options = {"label_smoothing": smoothing} if smoothing else {}
            add(f"binary_cross_entropy_{smoothing}{suffix}", "binary_cross_entropy", options, [x], [t], m, bce)

        def on_probabilities(x: Tensor, t: Tensor, m: Tensor) -> Tensor:
            return features(F.binary_cross_entropy(x.reshape(t.shape), t.double(), reduction="none"), m)

        p = probabilities(*shape)
        name = "binary_cross_entropy_on_probabilities"
        add(f"{name}{suffix}", name, {}, [p], [t], m, on_probabilities)

        for gamma, alpha in ((2.0, None), (2.0, 0.25), (0.5, 0.7), (0.0, None)):

            def focal(x: Tensor, t: Tensor, m: Tensor, gamma: float = gamma, alpha: float | None = alpha) -> Tensor:
                x, t = x.reshape(t.shape), t.double()
                p = torch.sigmoid(x)
                right = p * t + (1 - p) * (1 - t)
                loss = (1 - right) ** gamma * F.binary_cross_entropy_with_logits(x, t, reduction="none")
                return features(loss if alpha is None else loss * (alpha * t + (1 - alpha) * (1 - t)), m)

            options = {"gamma": gamma, "alpha": alpha}
            add(f"focal_{gamma}_{alpha}{suffix}", "focal", options, [x], [t], m, focal)

        for power, loss in ((1, "hinge"), (2, "squared_hinge")):
            for margin in (1.0, 0.5):

                def hinge(x: Tensor, t: Tensor, m: Tensor, power: int = power, margin: float = margin) -> Tensor:
                    return features(torch.clamp(margin - t * x.reshape(t.shape), min=0) ** power, m)

                add(f"{loss}_{margin}{suffix}", loss, {"margin": margin}, [x], [2 * t - 1], m, hinge)

    soft = probabilities(8)

    def soft_bce(x: Tensor, t: Tensor, m: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(x, t, reduction="none")

    add("binary_cross_entropy_soft", "binary_cross_entropy", {}, [normal(8)], [soft], weights(8), soft_bce)


def multiclass() -> None:
    for suffix, lead in (("", (6,)), ("_tokens", (3, 4))):
        x, t, soft, m = normal(*lead, 5), labels(5, *lead), simplex(*lead, 5), weights(*lead)
        one_hot = np.eye(5, dtype=np.float32)[t]
        for smoothing in (0.0, 0.1):
            for kind, target in (("labels", t), ("one_hot", one_hot), ("soft", soft)):

                def ce(x: Tensor, t: Tensor, smoothing: float = smoothing) -> Tensor:
                    return F.cross_entropy(x, t, reduction="none", label_smoothing=smoothing)

                options = {"label_smoothing": smoothing} if smoothing else {}
                name = f"cross_entropy_{smoothing}_{kind}{suffix}"
                add(name, "cross_entropy", options, [x], [target], m, classes_last(ce))

        p, name = simplex(*lead, 5) * np.float32(0.9) + np.float32(0.02), "cross_entropy_on_probabilities"
        nll = classes_last(lambda p, t: F.nll_loss(torch.log(p), t, reduction="none"))
        add(f"{name}_labels{suffix}", name, {}, [p], [t], m, nll)
        add(f"{name}_soft{suffix}", name, {}, [p], [soft], m, lambda p, t, m: -(t * torch.log(p)).sum(-1))

        def kl(x: Tensor, t: Tensor, m: Tensor) -> Tensor:
            return F.kl_div(F.log_softmax(x, -1), t, reduction="none").sum(-1)

        add(f"kl_divergence{suffix}", "kl_divergence", {}, [x], [soft], m, kl)
        add(f"kl_divergence_one_hot{suffix}", "kl_divergence", {}, [x], [one_hot], m, kl)

        for gamma in (2.0, 0.5):

            def focal(x: Tensor, t: Tensor, gamma: float = gamma) -> Tensor:
                loss = F.cross_entropy(x, t, reduction="none")
                return (1 - torch.exp(-loss)) ** gamma * loss

            add(f"focal_classes_{gamma}{suffix}", "focal", {"gamma": gamma}, [x], [t], m, classes_last(focal))

        for power, loss in ((1, "hinge"), (2, "squared_hinge")):
            for margin in (1.0, 0.5):

                def hinge(x: Tensor, t: Tensor, m: Tensor, power: int = power, margin: float = margin) -> Tensor:
                    flat, flat_t = x.reshape(-1, 5), t.reshape(-1).long()
                    losses = F.multi_margin_loss(flat, flat_t, p=power, margin=margin, reduction="none")
                    return losses.reshape(t.shape)

                add(f"{loss}_classes_{margin}{suffix}", loss, {"margin": margin}, [x], [t], m, hinge)


def segmentation() -> None:
    """Dice by the formula: PyTorch has none."""
    size = (4, 3, 5)
    for suffix, shape, classes in (("", size, 1), ("_channel", (*size, 1), 1), ("_classes", (*size, 3), 3)):
        x, t = normal(*shape), labels(max(2, classes), *size)
        for kind, m in (("examples", weights(4)), ("pixels", weights(*size))):
            for smooth, over_batch in ((1.0, False), (0.3, False), (1.0, True)):

                def dice(
                    x: Tensor,
                    t: Tensor,
                    m: Tensor,
                    classes: int = classes,
                    smooth: float = smooth,
                    over_batch: bool = over_batch,
                    pixel_mask: bool = kind == "pixels",
                ) -> Tensor:
                    p = torch.softmax(x, -1) if classes > 1 else torch.sigmoid(x.reshape(*t.shape, 1))
                    truth = F.one_hot(t.long(), classes).double() if classes > 1 else t.double()[..., None]
                    used = (
                        m.reshape(*m.shape, *[1] * (4 - m.ndim)) if pixel_mask or over_batch else torch.ones(4, 1, 1, 1)
                    )
                    axes = (0, 1, 2) if over_batch else (1, 2)
                    overlap, total = (used * p * truth).sum(axes), (used * (p + truth)).sum(axes)
                    return (1 - (2 * overlap + smooth) / (total + smooth)).mean(-1)

                def counted(m: Tensor, over_batch: bool = over_batch) -> Tensor:
                    if over_batch:
                        return torch.ones((), dtype=torch.float64)
                    return m if m.ndim == 1 else (m != 0).flatten(1).any(1).double()

                options = {"smooth": smooth, "over_batch": over_batch}
                name = f"dice_{smooth}_{'batch' if over_batch else 'example'}_{kind}{suffix}"
                add(name, "dice", options, [x], [t], m, dice, counted)


def embeddings() -> None:
    a, b, c, m = normal(6, 4, scale=0.6), normal(6, 4, scale=0.6), normal(6, 4, scale=0.6), weights(6)
    same = np.array([1, 0, 1, 0, 0, 1], np.int32)
    for margin in (1.0, 2.0):

        def contrastive(a: Tensor, b: Tensor, same: Tensor, m: Tensor, margin: float = margin) -> Tensor:
            d = F.pairwise_distance(a, b, eps=0.0)
            return 0.5 * (same * d**2 + (1 - same) * torch.clamp(margin - d, min=0) ** 2)

        def triplet(a: Tensor, b: Tensor, c: Tensor, m: Tensor, margin: float = margin) -> Tensor:
            return F.triplet_margin_loss(a, b, c, margin=margin, eps=1e-12, reduction="none")

        add(f"contrastive_{margin}", "contrastive", {"margin": margin}, [a, b], [same], m, contrastive)
        add(f"triplet_{margin}", "triplet", {"margin": margin}, [a, b, c], [], m, triplet)

    for temperature in (0.1, 0.5):

        def info_nce(a: Tensor, b: Tensor, m: Tensor, temperature: float = temperature) -> Tensor:
            similarity = F.normalize(a) @ F.normalize(b).T / temperature
            kept = torch.nonzero(m).squeeze(-1)
            similarity = similarity[kept][:, kept]
            index = torch.arange(len(kept))
            rows = F.cross_entropy(similarity, index, reduction="none")
            columns = F.cross_entropy(similarity.T, index, reduction="none")
            return torch.zeros(len(m), dtype=torch.float64).index_put((kept,), (rows + columns) / 2)

        add(f"info_nce_{temperature}", "info_nce", {"temperature": temperature}, [a, b], [], m, info_nce)


def sequences() -> None:
    x, m = normal(4, 9, 5), np.array([1, 0.5, 0, 2], np.float32)
    frames, lengths = np.array([9, 7, 9, 5], np.int32), np.array([4, 2, 3, 0], np.int32)
    for blank in (0, 4):
        t = (labels(4, 4, 4) + (1 if blank == 0 else 0)).astype(np.int32)
        t[0, 1] = t[0, 0]  # a repeat needs a blank between
        padded = np.where(np.arange(4) < lengths[:, None], t, blank).astype(np.int32)

        def nll(x: Tensor, frames: Tensor, t: Tensor, lengths: Tensor, blank: int = blank) -> Tensor:
            log_p = F.log_softmax(x, -1).transpose(0, 1)
            return F.ctc_loss(log_p, t.long(), frames.long(), lengths.long(), blank=blank, reduction="none")

        def whole(x: Tensor, t: Tensor, m: Tensor, call: LossOf = nll) -> Tensor:
            return call(x, torch.full((4,), 9), t, torch.tensor(lengths))

        def ragged(x: Tensor, frames: Tensor, t: Tensor, lengths: Tensor, m: Tensor, call: LossOf = nll) -> Tensor:
            return call(x, frames, t, lengths)

        add(f"ctc_{blank}", "ctc", {"blank": blank}, [x], [padded], m, whole)
        add(f"ctc_{blank}_lengths", "ctc", {"blank": blank}, [x, frames], [t, lengths], m, ragged)


if __name__ == "__main__":
    for subject in (regression, binary, multiclass, segmentation, embeddings, sequences):
        subject()
    np.savez_compressed(Path(__file__).parent / "losses.npz", **cases)  # pyright: ignore[reportArgumentType]
    print(f"{sum(name.endswith('/call') for name in cases)} cases")
