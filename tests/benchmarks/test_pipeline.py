import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from benchmarks.cli import UserError
from benchmarks.harness import data, pipeline


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def rows(images):
    return {image.tobytes() for image in np.asarray(images)}


def test_splits_are_disjoint_and_complete(digits):
    splits = pipeline.split(digits, 0.1)
    train, held_out = len(splits.train.labels), len(splits.validation.labels)
    assert (train, held_out) == (1294, 143)
    assert rows(splits.train.images) | rows(splits.validation.images) == rows(
        digits.train_images
    )
    assert not rows(splits.train.images) & rows(splits.validation.images)
    np.testing.assert_array_equal(splits.test.images, digits.test_images)


def test_limit_cuts_training_only(digits):
    splits = pipeline.split(digits, 0.1, limit=100)
    assert len(splits.train.labels) == 100
    assert len(splits.validation.labels) == 143
    assert len(splits.test.labels) == 360


def test_training_split_is_standardised(digits):
    splits = pipeline.split(digits, 0.2)
    x = pipeline.standardise(splits.train.images, splits.mean, splits.std)
    x = np.asarray(x, np.float64)
    assert x.mean() == pytest.approx(0, abs=1e-5)
    assert x.std() == pytest.approx(1, abs=1e-5)


def test_statistics_are_per_channel():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    images[..., 1] //= 4
    labels = np.zeros(50, np.int32)
    splits = pipeline.split(data.Dataset(images, labels, images, labels), 0.0)
    np.testing.assert_allclose(splits.mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(splits.std, images.std((0, 1, 2)), rtol=1e-5)


def test_constant_images_are_refused():
    images, labels = np.full((50, 4, 4, 1), 7, np.uint8), np.zeros(50, np.int32)
    with pytest.raises(UserError, match="constant"):
        pipeline.split(data.Dataset(images, labels, images, labels), 0.1)


def test_epoch_order_shows_every_example_at_most_once():
    order = pipeline.epoch_order(jax.random.key(3), 105, 10)
    assert order.shape == (10, 10)
    assert len(np.unique(order)) == 100
    assert order.max() < 105
    assert not np.array_equal(order, pipeline.epoch_order(jax.random.key(4), 105, 10))


def test_shift_moves_and_fills_with_zeros():
    image = np.zeros((1, 7, 7, 1), np.uint8)
    image[0, 3, 3] = 9
    images = jnp.tile(jnp.asarray(image), (400, 1, 1, 1))
    shifted = np.asarray(pipeline.shifted(jax.random.key(0), images, 2))
    assert shifted.shape == images.shape
    assert (shifted.sum((1, 2, 3)) == 9).all()
    found = {tuple(np.argwhere(one[..., 0])[0]) for one in shifted}
    # 25 places, each missed with probability (24/25)^400 < 1e-7.
    assert found == {(i, j) for i in range(1, 6) for j in range(1, 6)}


def test_flip_mirrors_half_of_the_images():
    image = jnp.arange(12, dtype=jnp.uint8).reshape(1, 3, 4, 1)
    images = jnp.tile(image, (1000, 1, 1, 1))
    flipped = np.asarray(pipeline.flipped(jax.random.key(0), images))
    mirrored = (flipped == np.asarray(image)[:, :, ::-1]).all((1, 2, 3))
    same = (flipped == np.asarray(image)).all((1, 2, 3))
    assert (mirrored ^ same).all()
    # Five standard deviations of a binomial: error probability below 1e-6.
    assert abs(mirrored.sum() - 500) < 80


def test_warping_turns_and_scales_about_the_middle():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 9, 11, 2)).astype(np.uint8)
    turned = np.asarray(pipeline.warped(jax.random.key(0), jnp.asarray(images), 20, 0))
    # Against scipy, at the angles that a least-squares fit over a grid finds.
    middle = np.array([4.0, 5.0])
    angles = np.deg2rad(np.linspace(-20, 20, 401))
    rotations = [[[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in angles]
    found = []
    for image, result in zip(images[:20, ..., 1], turned[:20, ..., 1], strict=True):
        candidates = [
            scipy.ndimage.affine_transform(
                image.astype(float),
                np.array(r),
                middle - np.array(r) @ middle,
                order=1,
                mode="grid-constant",
            )
            for r in rotations
        ]
        errors = [abs(c - result)[1:-1, 1:-1].mean() for c in candidates]
        found.append(angles[np.argmin(errors)])
        assert min(errors) < 1  # of 255; the grid's step is 0.1 degrees
    assert min(found) < -0.1
    assert max(found) > 0.1
    same = pipeline.warped(jax.random.key(0), jnp.asarray(images), 0, 0)
    np.testing.assert_allclose(same, images, atol=1e-3)


def test_zoom_keeps_the_middle_and_moves_the_rest():
    image = jnp.zeros((9, 9, 1)).at[4, 4].set(100).at[4, 8].set(100)
    zoomed = pipeline.warped(jax.random.key(0), jnp.stack([image] * 200), 0, 0.25)
    np.testing.assert_allclose(zoomed[:, 4, 4, 0], 100)
    # The other point, 4 pixels out, goes to 3.2 to 5.3: column 7 sees it if it shrank.
    assert (zoomed[:, 4, :2] == 0).all()
    assert (zoomed[:, 4, 6] == 0).all()
    assert 0 < (zoomed[:, 4, 7, 0] > 0).mean() < 1


def test_minibatch_pairs_images_with_their_labels(digits):
    splits = pipeline.split(digits, 0.1)
    indices = jnp.array([5, 3, 900])
    batch = pipeline.minibatch(
        jax.random.key(0), splits, indices, pipeline.Augmentation()
    )
    raw = batch.images * splits.std[None, None, None] + splits.mean[None, None, None]
    np.testing.assert_allclose(raw, splits.train.images[indices], atol=1e-4)
    np.testing.assert_array_equal(batch.labels, splits.train.labels[indices])
