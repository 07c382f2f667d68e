from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    ResizedCrop,
    Rotate,
)
from tests.data.augmenting import KEY, apply, draws, image_batch, quickly, ramps

COLOUR = Colour(0.4, 0.4, 0.4, 0.1, black=0, white=1)
ALONE = [Crop(2), Crop(1, "reflect"), Flip(), ResizedCrop(), Rotate(30), Erase(1.0), COLOUR, Noise(0.1)]
TOGETHER = [Mixup(1.0, classes=10), CutMix(classes=10), Compose(Crop(1, "edge"), Flip("vertical"))]
ALL = ALONE + TOGETHER


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


@pytest.mark.parametrize(("augmentation", "pixels"), [(Crop(2, fill=(7, 7, 0)), 0.0), (Rotate(40), 0.5)], ids=str)
def test_what_is_said_of_each_pixel_moves_with_it(augmentation, pixels):
    places = np.tile(np.stack([*np.mgrid[:9, :7], np.ones((9, 7))], -1, dtype=np.float32), (4, 1, 1, 1))
    labels = np.tile(np.arange(1, 64, dtype=np.int32).reshape(9, 7), (4, 1, 1))
    batch = {"inputs": places, "targets": labels, "clean": places, "classes": labels[:, 0]}
    out = jax.device_get(apply(augmentation, KEY, batch))
    np.testing.assert_array_equal(out["clean"], out["inputs"])
    np.testing.assert_array_equal(out["classes"], labels[:, 0])
    inside = out["inputs"][..., 2]
    assert 0.5 < np.mean(inside > 0.999) < 1 and out["targets"].dtype == np.int32
    np.testing.assert_array_equal(out["targets"][inside < 0.49], 0)
    found = np.stack(np.divmod(out["targets"] - 1, 7), -1)
    assert np.abs(found - out["inputs"][..., :2])[inside > 0.999].max() <= pixels + 1e-5


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


# What is refused.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crop(-1), "Crop.padding got -1, wanted at least 0"),
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
