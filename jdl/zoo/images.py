"""What the networks for images ask of their input."""

from __future__ import annotations

import jax

from jdl import check


def check_image(x: jax.Array, stride: int = 1) -> None:
    """``x`` is floating ``[B, H, W, C]``, neither side smaller than the ``stride`` of the whole network."""
    check.rank(x, 4, "[B, H, W, C]", fix="add a channel axis with x[..., None], or a batch axis with x[None]")
    check.floating(x)
    if min(x.shape[1:3]) < stride:
        raise check.InputError(
            f"input got {check.describe(x)}, whose sides the network divides by {stride}: wanted at least "
            f"{stride}×{stride}; {channels_last_or('use larger images or fewer halvings', x)}"
        )


def channels_last_or(fix: str, x: jax.Array) -> str:
    """What to do about images of a wrong size: ``fix``, unless they look like ``[B, C, H, W]``."""
    channels_first = x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] > 4
    return "channels come last: x.transpose(0, 2, 3, 1)" if channels_first else fix
