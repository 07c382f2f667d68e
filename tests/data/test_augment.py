from __future__ import annotations

import colorsys
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image, ImageEnhance

from jdl.check import InputError
from jdl.data import (
    Augmentation,
    Colour,
    Compose,
    Crop,
    CutMix,
    Erase,
    Flip,
    ImageAugmentation,
    Mixup,
    Noise,
    Normaliser,
    ResizedCrop,
    Rotate,
)
from jdl.data.augment.geometry import resized, rotated

KEY = jax.random.key(0)
COLOUR = Colour(0.4, 0.4, 0.4, 0.1, black=0, white=1)
ALONE = [Crop(2), Crop(1, "reflect"), Flip(), ResizedCrop(), Rotate(30), Erase(1.0), COLOUR, Noise(0.1)]
TOGETHER = [Mixup(1.0, classes=10), CutMix(classes=10), Compose(Crop(1, "edge"), Flip("vertical"))]
ALL = ALONE + TOGETHER


# Not optimised: most of the time goes into compiling.
quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@partial(quickly, static_argnums=0)
def apply(augmentation, key, batch):
    return augmentation(key, batch)


def image_batch(size: int = 6, shape: tuple[int, ...] = (8, 9, 3), dtype=jnp.float32) -> dict[str, jax.Array]:
    rng = np.random.default_rng(1)
    scale = 255 if dtype == jnp.uint8 else 1
    inputs = jnp.asarray(rng.random((size, *shape)) * scale, jnp.float32).astype(dtype)
    return {"inputs": inputs, "targets": jnp.arange(size, dtype=jnp.int32) % 10, "weight": jnp.ones(size)}


def ramps(size: int, rows: int, columns: int) -> dict[str, jax.Array]:
    """Images that hold each pixel's row and column, so that one sees where its content comes from."""
    places = np.stack(np.mgrid[:rows, :columns], -1).astype(np.float32)
    return {"inputs": jnp.asarray(np.broadcast_to(places, (size, rows, columns, 2)))}


def draws(augmentation, batch, key=KEY) -> np.ndarray:
    return np.asarray(apply(augmentation, key, batch)["inputs"])


def assert_uniform(values, low: float, high: float) -> None:
    assert scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > 0.01


def assert_evenly_placed(starts, free, rng) -> None:
    """Whole places 0..free are equally likely: with a uniform fraction added they fill [0, 1] evenly."""
    assert (starts >= 0).all() and (starts <= free).all()
    assert_uniform((starts + rng.random(len(starts))) / (free + 1), 0, 1)


# What every augmentation keeps.


@pytest.mark.parametrize("augmentation", ALL, ids=str)
def test_an_augmentation_is_a_pure_function_of_key_and_batch(augmentation):
    batch = image_batch()
    before = dict(batch)
    out = apply(augmentation, KEY, batch)
    again = apply(pickle.loads(pickle.dumps(augmentation)), KEY, batch)
    jax.tree.map(np.testing.assert_array_equal, out, again)
    assert batch == before and set(out) == set(batch) and out["weight"] is not None
    assert out["inputs"].shape == batch["inputs"].shape
    assert not np.array_equal(out["inputs"], apply(augmentation, jax.random.key(1), batch)["inputs"])
    two = jax.eval_shape(jax.vmap(augmentation, (0, None)), jax.random.split(KEY), batch)
    assert two["inputs"].shape == (2, *batch["inputs"].shape)


def test_several_keys_at_once():
    augmentation = Crop(2)
    batch, keys = image_batch(), jax.random.split(KEY)
    both = quickly(jax.vmap(augmentation, (0, None)))(keys, batch)
    for row, key in enumerate(keys):
        one = apply(augmentation, key, batch)
        np.testing.assert_allclose(both["inputs"][row], one["inputs"], atol=1e-6)


@pytest.mark.parametrize("augmentation", ALL, ids=str)
def test_equal_settings_meet_the_same_program(augmentation):
    again = pickle.loads(pickle.dumps(augmentation))
    assert again is not augmentation and again == augmentation and hash(again) == hash(augmentation)
    assert repr(again) == repr(augmentation) and isinstance(augmentation, Augmentation)
    apply(augmentation, KEY, image_batch())
    programs = apply._cache_size()
    apply(again, KEY, image_batch())
    assert apply._cache_size() == programs


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.uint8])
@pytest.mark.parametrize("augmentation", ALL, ids=str)
def test_shapes_and_dtypes_are_kept(augmentation, dtype):
    batch = image_batch(dtype=dtype)
    out = jax.eval_shape(augmentation, KEY, batch)
    assert (out["inputs"].shape, out["inputs"].dtype) == (batch["inputs"].shape, dtype)


@pytest.mark.parametrize("augmentation", ALONE, ids=str)
def test_examples_draw_by_themselves(augmentation):
    one = image_batch(1)["inputs"]
    same = image_batch() | {"inputs": jnp.broadcast_to(one, (6, *one.shape[1:]))}
    out = draws(augmentation, same)
    distinct = len({image.tobytes() for image in out})
    assert distinct >= (2 if isinstance(augmentation, Flip) else 4)


def test_the_draw_of_an_example_does_not_depend_on_how_many_follow():
    augmentation, batch = Flip(), image_batch()
    fewer = jax.tree.map(lambda x: x[:3], batch)
    np.testing.assert_allclose(draws(augmentation, fewer), draws(augmentation, batch)[:3], atol=1e-6)


@pytest.mark.parametrize("augmentation", [Rotate(30), ResizedCrop()], ids=str)
def test_uint8_is_computed_in_floats_and_rounded(augmentation):
    pixels = image_batch(dtype=jnp.uint8)
    wanted = np.round(draws(augmentation, pixels | {"inputs": pixels["inputs"].astype(jnp.float32)}))
    got = draws(augmentation, pixels).astype(np.float32)
    assert np.max(np.abs(got - wanted)) <= 1 and np.mean(got != wanted) < 1e-2  # a half may round either way


def test_composition_folds_a_key_for_each():
    batch = ramps(64, 2, 2)
    out = draws(Compose(Flip(), Flip()), batch)
    once = draws(Flip(), batch, jax.random.fold_in(KEY, 0))
    np.testing.assert_array_equal(out, draws(Flip(), {"inputs": once}, jax.random.fold_in(KEY, 1)))
    assert 16 < np.sum(out[:, 0, 0, 1] == 1) < 48  # one key for both would undo each flip
    np.testing.assert_array_equal(Compose()(KEY, batch)["inputs"], batch["inputs"])


def test_any_function_of_key_and_batch_composes():
    def darken(key, batch):
        return batch | {"inputs": 0.5 * batch["inputs"]}

    batch = image_batch()
    np.testing.assert_array_equal(Compose(darken, darken)(KEY, batch)["inputs"], 0.25 * batch["inputs"])


def test_an_image_augmentation_of_ones_own():
    class Invert(ImageAugmentation):
        def image(self, key, image):
            return jnp.where(jax.random.bernoulli(key), -image, image)

    out = draws(Invert(), image_batch(64))
    inverted = out[:, 0, 0, 0] < 0
    assert 16 < inverted.sum() < 48
    np.testing.assert_array_equal(np.abs(out), image_batch(64)["inputs"])


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


# What is refused.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crop(-1), "Crop.padding got -1, wanted a whole number"),
        (lambda: Crop(1.5), "Crop.padding got 1.5"),
        (lambda: Crop(2, "zero"), "Crop.mode got 'zero', wanted one of 'constant', 'edge', 'reflect'"),
        (lambda: Crop(2, fill="black"), "Crop.fill got 'black', wanted a number"),
        (lambda: Flip("left"), "Flip.axis got 'left', wanted 'horizontal' or 'vertical'"),
        (lambda: Flip(rate=1.5), "Flip.rate got 1.5, wanted a number from 0 to 1"),
        (lambda: Rotate(-5), "Rotate.degrees got -5"),
        (lambda: Rotate((30, 10)), r"Rotate.degrees got \(30, 10\), wanted a pair \(smallest, largest\)"),
        (lambda: Rotate((1, 2, 3)), "Rotate.degrees got .*, wanted a pair of numbers"),
        (lambda: ResizedCrop(scale=(0, 1)), r"ResizedCrop.scale got \(0, 1\)"),
        (lambda: ResizedCrop(scale=0.5), "ResizedCrop.scale got 0.5, wanted a pair"),
        (lambda: Erase(area=(0.1, 1.2)), "Erase.area got"),
        (lambda: Erase(rate="often"), "Erase.rate got 'often'"),
        (lambda: Colour(brightness=-1), "Colour.brightness got -1"),
        (lambda: Colour(hue=0.7), "Colour.hue got"),
        (lambda: Colour(black=0), "Colour got black=0 and white=None, wanted both or neither"),
        (lambda: Noise(float("nan")), "Noise.std got nan"),
        (lambda: Noise(-1), "Noise.std got -1, wanted a number of at least 0"),
        (lambda: Mixup(0), "Mixup.alpha got 0"),
        (lambda: CutMix(classes=1), "CutMix.classes got 1"),
        (lambda: Compose(Crop(1), 3), "got 3, wanted an augmentation"),
        (lambda: Compose(Flip), "wanted an augmentation such as .*; give its settings"),
    ],
)
def test_settings_that_make_no_sense(make, message):
    with pytest.raises(InputError, match=message):
        make()


FLOATS = jnp.zeros((2, 4, 4, 3))
LABELS = jnp.zeros(2, jnp.int32)


@pytest.mark.parametrize(
    ("augmentation", "batch", "message"),
    [
        (Crop(), {"x": FLOATS}, r"in Crop: got a batch of \['x'\], wanted a dict with 'inputs'"),
        (Crop(), FLOATS, r"in Crop: got a batch of float32\[2, 4, 4, 3\], wanted a dict"),
        (Flip(), {"inputs": FLOATS[..., 0]}, r"in Flip: inputs got float32\[2, 4, 4\].*x\[..., None\]"),
        (Crop(), {"inputs": FLOATS.astype(jnp.int32)}, "inputs got int32.*a floating dtype or uint8"),
        (Noise(1.0), {"inputs": FLOATS.astype(bool)}, "inputs got bool"),
        (Crop(4, "reflect"), {"inputs": FLOATS}, r"Crop.padding got 4 for images of \(4, 4\)"),
        (Crop(1, fill=(1, 2)), {"inputs": FLOATS}, "Crop.fill got 2 values for .*one for each channel"),
        (Erase(fill=300), {"inputs": FLOATS.astype(jnp.uint8)}, "Erase.fill got 300.*wanted 0 to 255"),
        (Colour(0.1), {"inputs": FLOATS}, "does not know the range.*black=0, white=1"),
        (Colour(0.1, black=0, white=1), {"inputs": FLOATS[..., :2]}, "1 or 3 channels"),
        (Mixup(), {"inputs": FLOATS, "targets": LABELS}, r"targets got int32\[2\].*Mixup\(classes=10\)"),
        (Mixup(), {"inputs": FLOATS}, "wanted a dict with 'targets'"),
        (Mixup(classes=3), {"inputs": FLOATS[:1], "targets": LABELS[:1]}, "in Mixup: got a batch of one example"),
        (CutMix(classes=3), {"inputs": FLOATS[:, 0], "targets": LABELS}, "in CutMix: inputs got float32"),
        (
            Mixup(classes=3),
            {"inputs": FLOATS, "targets": LABELS, "mask": jnp.ones((2, 4))},
            r"mask got float32\[2, 4\], wanted \[2\]",
        ),
    ],
)
def test_batches_that_cannot_be_augmented(augmentation, batch, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(augmentation, KEY, batch)
