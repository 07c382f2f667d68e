"""Every augmentation draws from the distribution that it names, and computes what the field's references do."""

from __future__ import annotations

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image, ImageEnhance

from jdl.data import (
    Colour,
    Crop,
    CutMix,
    Erase,
    Flip,
    Mixup,
    Noise,
    Normaliser,
    ResizedCrop,
    Rotate,
)
from jdl.data.augment.geometry import resized, rotated
from tests.data.augmenting import KEY, apply, assert_evenly_placed, assert_uniform, draws, image_batch, quickly, ramps

pytestmark = pytest.mark.slow

COLOUR = Colour(0.4, 0.4, 0.4, 0.1, black=0, white=1)


# Crop, resized crop, flip, rotate.


@pytest.mark.parametrize(
    ("mode", "options"), [("constant", {"constant_values": -1}), ("edge", {}), ("reflect", {})], ids=str
)
def test_every_crop_is_as_likely_and_comes_from_the_padded_image(mode, options):
    batch = ramps(10_000, 5, 6)
    out = draws(Crop(2, mode, fill=-1), batch)
    corner = out[:, 2, 2].astype(int)  # with a padding of 2 this pixel always lies in the image
    assert corner.min() == 0 and corner.max() == 4
    counts = np.bincount(corner[:, 0] * 5 + corner[:, 1], minlength=25)
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    padded = np.pad(batch["inputs"][0], ((2, 2), (2, 2), (0, 0)), mode, **options)
    for image, (top, left) in zip(out[:200], corner, strict=False):
        np.testing.assert_array_equal(image, padded[top : top + 5, left : left + 6])


def test_fill_may_differ_by_channel():
    batch = {"inputs": jnp.zeros((64, 4, 4, 3), jnp.float32)}
    for augmentation in (Crop(2, fill=(1, 2, 3)), Erase(1.0, fill=np.array([1, 2, 3]))):
        out = draws(augmentation, batch).reshape(-1, 3)
        assert {tuple(pixel) for pixel in out} == {(0, 0, 0), (1, 2, 3)}


@pytest.mark.parametrize(("axis", "number"), [("horizontal", 2), ("vertical", 1)])
def test_flips_mirror_the_image_at_their_rate(axis, number):
    batch = ramps(4_000, 3, 4)
    out, image = draws(Flip(axis, 0.3), batch), np.asarray(batch["inputs"])
    flipped = (out == np.flip(image, number)).all((1, 2, 3))
    assert np.all(flipped | (out == image).all((1, 2, 3)))
    assert scipy.stats.binomtest(int(flipped.sum()), len(out), 0.3).pvalue > 0.01
    np.testing.assert_array_equal(draws(Flip(axis, 1.0), batch), np.flip(image, number))
    np.testing.assert_array_equal(draws(Flip(axis, 0.0), batch), image)


@pytest.mark.parametrize(("degrees", "low", "high"), [(25, -25, 25), ((10, 50), 10, 50)], ids=str)
def test_angles_are_uniform(degrees, low, high):
    out = draws(Rotate(degrees), ramps(1_500, 9, 9))
    down, right = out[:, 4, 7, 0] - 4, out[:, 4, 7, 1] - 4  # 3 to the right of the centre
    np.testing.assert_allclose(np.hypot(down, right), 3, atol=1e-4)
    assert_uniform(np.degrees(np.arctan2(down, right)), low, high)


@pytest.mark.parametrize("degrees", [0, 17, -45, 90, 123, 180])
def test_rotation_is_that_of_scipy(degrees):
    image = np.random.default_rng(0).random((9, 12, 3)).astype(np.float32)
    options = {"axes": (1, 0), "reshape": False, "order": 1, "mode": "grid-constant", "cval": 0.7}
    wanted = scipy.ndimage.rotate(image.astype(np.float64), degrees, **options)
    got = quickly(rotated, static_argnums=2)(image, jnp.float32(degrees), 0.7)
    np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_resized_crops_are_uniform_in_area_shape_and_place():
    size = 32
    out = draws(ResizedCrop((0.2, 0.5), (3 / 4, 4 / 3)), ramps(1_500, size, size))
    height, width = (
        size * (out[:, 17, 17, axis] - out[:, 15, 15, axis]) / 2 for axis in (0, 1)
    )  # a step of one pixel is one of height / size
    assert_uniform(height * width / size**2, 0.2, 0.5)
    assert_uniform(np.log(width / height), np.log(3 / 4), np.log(4 / 3))
    for axis, length in ((0, height), (1, width)):
        start = out[:, 16, 16, axis] - 16.5 * length / size + 0.5
        assert_uniform(start / (size - length), 0, 1)


def test_resizing_is_linear_interpolation():
    image = np.random.default_rng(0).random((7, 9, 2)).astype(np.float32)
    top, left, height, width = 1.3, 0.0, 4.2, 8.5
    rows = top + (np.arange(7) + 0.5) * height / 7 - 0.5
    columns = left + (np.arange(9) + 0.5) * width / 9 - 0.5
    places = np.meshgrid(rows, columns, indexing="ij")
    wanted = [scipy.ndimage.map_coordinates(image[..., c], places, order=1, mode="nearest") for c in range(2)]
    got = quickly(resized)(image, *map(jnp.float32, (top, left, height, width)))
    np.testing.assert_allclose(got, np.stack(wanted, -1), atol=2e-6)
    np.testing.assert_allclose(draws(ResizedCrop((1, 1), (9 / 7, 9 / 7)), {"inputs": image[None]})[0], image, atol=1e-6)


# Erase, colour, noise.


def test_what_is_erased():
    rng, size = np.random.default_rng(0), 64
    out = draws(Erase(0.6, (0.02, 0.33), (0.5, 2), fill=-1), {"inputs": jnp.ones((2_000, size, size, 1))})
    erased = out[..., 0] == -1
    assert np.all(erased | (out[..., 0] == 1))
    some = erased.any((1, 2))
    assert scipy.stats.binomtest(int(some.sum()), len(out), 0.6).pvalue > 0.01
    erased = erased[some]
    rows, columns = erased.any(2), erased.any(1)
    height, width = rows.sum(1), columns.sum(1)
    assert np.all(erased == rows[:, :, None] & columns[:, None, :])  # rectangles
    assert_uniform(erased.mean((1, 2)), 0.02, 0.33)
    assert_uniform(np.log(width / height), np.log(0.5), np.log(2))
    assert_evenly_placed(rows.argmax(1), size - height, rng)
    assert_evenly_placed(columns.argmax(1), size - width, rng)


def test_a_rectangle_that_does_not_fit_keeps_its_area():
    out = draws(Erase(1.0, (0.4, 0.5), (0.9, 1.1)), {"inputs": jnp.ones((500, 4, 1000, 1))})
    erased = out[..., 0] == 0
    assert np.all(erased.any(2).sum(1) == 4)  # as high as the image, as a square would be higher
    assert_uniform(erased.mean((1, 2)), 0.4, 0.5)


@pytest.mark.parametrize(
    ("name", "factor", "reference"),
    [
        ("brightness", 1.7, ImageEnhance.Brightness),
        ("contrast", 0.3, ImageEnhance.Contrast),
        ("contrast", 1.7, ImageEnhance.Contrast),
        ("saturation", 1.7, ImageEnhance.Color),
    ],
)
def test_colours_are_those_of_pillow(name, factor, reference):
    pixels = np.random.default_rng(0).integers(0, (256, 200, 80), (8, 9, 3)).astype(np.uint8)  # more red than blue
    wanted = np.asarray(reference(Image.fromarray(pixels)).enhance(factor)).astype(int)
    got = draws(Colour(**{name: (factor, factor)}), {"inputs": jnp.asarray(pixels[None])})[0]
    assert np.max(np.abs(got - wanted)) <= 2  # it rounds greys to whole numbers first


@pytest.mark.parametrize("turn", [-0.4, 0.05])
def test_hue_is_that_of_hsv(turn):
    colours = np.random.default_rng(0).random((5, 6, 3)).astype(np.float32)
    colours[0, 0] = colours[0, 1] = 0.5  # grey has no hue
    colours[0, 1, 0] = 1.0

    def turned(red, green, blue):
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        return colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)

    wanted = np.array([[turned(*pixel) for pixel in row] for row in colours])
    got = draws(Colour(hue=(turn, turn), black=0, white=1), {"inputs": jnp.asarray(colours[None])})[0]
    np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_factors_of_colour_are_uniform():
    grey = {"inputs": jnp.full((1_500, 1, 1, 1), 0.25)}
    assert_uniform(draws(Colour(brightness=0.6, black=0, white=1), grey).ravel() / 0.25, 0.4, 1.6)
    assert Colour(brightness=3.0).brightness == (0, 4)
    two = {"inputs": jnp.tile(jnp.asarray([0.4, 0.6]).reshape(1, 1, 2, 1), (1_500, 1, 1, 1))}
    out = draws(Colour(contrast=(0.5, 2.0), black=0, white=1), two)
    np.testing.assert_allclose(out.mean((1, 2, 3)), 0.5, atol=1e-6)
    assert_uniform((out[:, 0, 1, 0] - out[:, 0, 0, 0]) / 0.2, 0.5, 2.0)
    red = {"inputs": jnp.tile(jnp.asarray([0.5, 0.4, 0.4]).reshape(1, 1, 1, 3), (1_500, 1, 1, 1))}
    out = draws(Colour(saturation=(0.5, 1.5), black=0, white=1), red)
    assert_uniform((out[..., 0] - out[..., 1]).ravel() / 0.1, 0.5, 1.5)


def test_colour_of_normalised_images_is_the_normalised_colour():
    raw = image_batch()
    normaliser = Normaliser.fit(np.asarray(raw["inputs"]), axis=(0, 1, 2))
    black, white = normaliser.apply(np.zeros(3, np.float32)), normaliser.apply(np.ones(3, np.float32))
    settings = Colour(0.4, 0.4, 0.4, 0.1, black=black, white=white)
    got = draws(settings, raw | {"inputs": jnp.asarray(normaliser.apply(np.asarray(raw["inputs"])))})
    wanted = normaliser.apply(draws(COLOUR, raw))
    np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_noise_is_normal():
    batch = {"inputs": jnp.full((50, 20, 20), 3.0)}
    noise = draws(Noise(0.5), batch).ravel() - 3
    assert scipy.stats.kstest(noise, scipy.stats.norm(0, 0.5).cdf).pvalue > 0.01


# Mixup and cutmix.


def mixed(augmentation, size: int, shape=(4, 4, 1), **more) -> dict[str, np.ndarray]:
    """Images that hold their own number, each a class of its own: targets then say what was mixed, and how much."""
    inputs = jnp.arange(size, dtype=jnp.float32).reshape(size, *[1] * len(shape)) * jnp.ones(shape)
    batch = {"inputs": inputs, "targets": jnp.arange(size, dtype=jnp.int32), **more}
    return jax.tree.map(np.asarray, apply(augmentation, KEY, batch))


def own_shares(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of its own class in each example, and its partner (itself where there is none)."""
    own = np.diag(targets)
    rest = targets - np.diag(own)
    return own, np.where(rest.any(1), rest.argmax(1), np.arange(len(own)))


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_of_mixup_are_beta(alpha):
    out = mixed(Mixup(alpha, 1_000), 1_000, ())
    own, partner = own_shares(out["targets"])
    assert np.mean(partner == np.arange(1_000)) < 0.05 + (alpha < 1) * 0.2  # α = 0.2 often leaves all but nothing
    mixes = partner != np.arange(1_000)
    assert scipy.stats.kstest(own, scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.01
    np.testing.assert_allclose(out["targets"].sum(1), 1, atol=1e-6)
    assert len(set(partner[mixes])) == mixes.sum()  # each is a partner once
    np.testing.assert_allclose(out["inputs"], out["targets"] @ np.arange(1_000, dtype=np.float32), rtol=2e-4, atol=0.1)


def test_shares_of_cutmix_are_those_of_the_pixels():
    size, rows, columns = 1_000, 11, 16
    out = mixed(CutMix(1.0, size), size, (rows, columns, 1))
    own, partner = own_shares(out["targets"])
    numbers = np.arange(size).reshape(-1, 1, 1)
    box = out["inputs"][..., 0] != numbers
    np.testing.assert_allclose(own, 1 - box.mean((1, 2)), atol=1e-7)
    np.testing.assert_array_equal(out["inputs"][..., 0], np.where(box, partner.reshape(-1, 1, 1), numbers))
    assert np.all(box == box.any(2)[:, :, None] & box.any(1)[:, None, :])

    # As in section 3.1 of the paper, drawn by NumPy.
    rng = np.random.default_rng(0)
    side, pixels = np.sqrt(1 - rng.beta(1, 1, 20_000)), np.ones(20_000)
    for length in (rows, columns):
        cut = np.floor(side * length)
        start = rng.integers(0, length, 20_000) - cut // 2
        pixels *= np.clip(start + cut, 0, length) - np.clip(start, 0, length)
    moved = partner != np.arange(size)
    assert scipy.stats.ks_2samp(box[moved].sum((1, 2)), pixels[pixels > 0]).pvalue > 0.01
    assert np.mean(~moved) == pytest.approx(np.mean(pixels == 0), abs=0.02)


@pytest.mark.parametrize("augmentation", [Mixup(1.0), CutMix(1.0)], ids=str)
def test_floating_targets_are_mixed_as_they_are(augmentation):
    size = 64
    targets = jnp.arange(size, dtype=jnp.float32)[:, None]
    out = mixed(augmentation, size, targets=targets)
    means = out["inputs"].mean((1, 2, 3))  # of a number of its own, and so of the target
    np.testing.assert_allclose(out["targets"][:, 0], means, rtol=1e-5)
    assert out["targets"].shape == (size, 1)


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_a_masked_example_is_neither_mixed_nor_mixed_in(kind):
    size = 60
    mask = np.arange(size) % 3 != 0
    out = mixed(kind(1.0, size), size, mask=jnp.asarray(mask, jnp.float32))
    np.testing.assert_array_equal(out["mask"], mask)
    np.testing.assert_array_equal(out["targets"][~mask], np.eye(size)[~mask])
    np.testing.assert_array_equal(out["inputs"][~mask, 0, 0, 0], np.flatnonzero(~mask))
    assert not out["targets"][mask][:, ~mask].any()
    np.testing.assert_allclose(out["targets"].sum(1), 1, atol=1e-6)
    assert (np.diag(out["targets"])[mask] < 1).mean() > 0.4
    for dtype in (bool, jnp.int32):
        batch = {"inputs": jnp.zeros((3, 4, 4, 1)), "targets": jnp.zeros(3, jnp.int32), "mask": jnp.ones(3, dtype)}
        assert jax.eval_shape(kind(1.0, 2), KEY, batch)["mask"].dtype == jnp.float32


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_weights_mix_with_their_examples(kind):
    size = 60
    weight = jnp.asarray(np.random.default_rng(0).random(size), jnp.float32)
    out = mixed(kind(1.0, size), size, mask=weight)
    # The same key without weights gives the shares; Σ mask · targets must hold each with its share of its weight.
    plain = mixed(kind(1.0, size), size, mask=jnp.ones(size))["targets"]
    np.testing.assert_allclose(out["mask"][:, None] * out["targets"], plain * np.asarray(weight), atol=1e-6)
