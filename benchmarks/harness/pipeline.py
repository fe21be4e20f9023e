"""From uint8 arrays on the device to shuffled, standardised, augmented minibatches."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cli import UserError
from benchmarks.harness.data import Dataset
from benchmarks.harness.networks import Batch


class Arrays(NamedTuple):
    """``uint8[N, H, W, C]`` images and ``int32[N]`` labels on the device."""

    images: jax.Array
    labels: jax.Array


class Splits(NamedTuple):
    """Three disjoint splits, and the training split's statistics per channel."""

    train: Arrays
    validation: Arrays
    test: Arrays
    mean: jax.Array
    std: jax.Array


def split(dataset: Dataset, validation: float, limit: int | None = None) -> Splits:
    """Sets a fixed random fraction of the published training split aside.

    Args:
      dataset: What ``benchmarks.harness.data.load`` gives.
      validation: The fraction, in [0, 1); the same examples for every run and seed.
      limit: Keep only so many training examples. The test set is never cut.
    """
    size = len(dataset.train_labels)
    order = np.random.default_rng(20).permutation(size)
    held_out, kept = np.split(order, [int(validation * size)])
    kept = kept[:limit]
    images = dataset.train_images[kept]
    # By a histogram: exact, and without a float copy of the whole set.
    counts = np.stack(
        [np.bincount(c.reshape(-1), minlength=256) for c in np.moveaxis(images, -1, 0)]
    )
    values = np.arange(256)
    mean = counts @ values / counts.sum(axis=1)
    std = np.sqrt(counts @ values**2 / counts.sum(axis=1) - mean**2)
    if not (std > 0).all():
        raise UserError(
            f"the training images are constant (standard deviation {std} per channel); "
            "they cannot be standardised"
        )

    def arrays(images: np.ndarray, labels: np.ndarray) -> Arrays:
        return Arrays(jnp.asarray(images), jnp.asarray(labels))

    return Splits(
        arrays(images, dataset.train_labels[kept]),
        arrays(dataset.train_images[held_out], dataset.train_labels[held_out]),
        arrays(dataset.test_images, dataset.test_labels),
        jnp.asarray(mean, jnp.float32),
        jnp.asarray(std, jnp.float32),
    )


def standardise(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """(x − mean) / std per channel, as float32."""
    shape = (1,) * (images.ndim - 1) + (-1,)
    return (images.astype(jnp.float32) - mean.reshape(shape)) / std.reshape(shape)


def batch_of(splits: Splits, arrays: Arrays, rows: Any) -> Batch:
    """The standardised images of one of the splits, and their labels."""
    images = standardise(arrays.images[rows], splits.mean, splits.std)
    return Batch(images, arrays.labels[rows])


def shifted(key: jax.Array, images: jax.Array, pixels: int) -> jax.Array:
    """Each image moved by up to ``pixels`` in both directions, filled with zeros."""
    padding = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = jnp.pad(images, padding)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pixels + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1], jnp.zeros_like(corner[0]))
        return jax.lax.dynamic_slice(image, start, images.shape[1:])

    return jax.vmap(crop)(padded, corners)


def flipped(key: jax.Array, images: jax.Array) -> jax.Array:
    """Each image mirrored left to right with probability one half."""
    flip = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def warped(key: jax.Array, images: jax.Array, degrees: float, zoom: float) -> jax.Array:
    """Each image turned by up to ``degrees`` and scaled by up to 1 ± ``zoom``.

    About its middle, by bilinear interpolation, height and width scaled apart, and
    filled with zeros; ``float32`` of the same shape.
    """
    size, height, width, _ = images.shape
    turn_key, zoom_key = jax.random.split(key)
    angles = jax.random.uniform(turn_key, (size,), minval=-1.0) * jnp.deg2rad(degrees)
    scales = 1 + jax.random.uniform(zoom_key, (size, 2), minval=-1.0) * zoom
    rows, columns = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2,
        jnp.arange(width) - (width - 1) / 2,
        indexing="ij",
    )

    def one(image: jax.Array, angle: jax.Array, scale: jax.Array) -> jax.Array:
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        y = scale[0] * (cosine * rows - sine * columns) + (height - 1) / 2
        x = scale[1] * (sine * rows + cosine * columns) + (width - 1) / 2

        def channel(values: jax.Array) -> jax.Array:
            return jax.scipy.ndimage.map_coordinates(values, [y, x], order=1)

        return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)

    return jax.vmap(one)(images.astype(jnp.float32), angles, scales)


class Augmentation(NamedTuple):
    """What is done to training images: pixels, a choice, degrees, a fraction."""

    shift: int = 0
    flip: bool = False
    rotate: float = 0.0
    zoom: float = 0.0


def augmented(key: jax.Array, images: jax.Array, by: Augmentation) -> jax.Array:
    """``images`` under as much of ``by`` as is not zero."""
    shift_key, flip_key, warp_key = jax.random.split(key, 3)
    if by.rotate or by.zoom:
        images = warped(warp_key, images, by.rotate, by.zoom)
    images = shifted(shift_key, images, by.shift) if by.shift else images
    return flipped(flip_key, images) if by.flip else images


def minibatch(
    key: jax.Array, splits: Splits, indices: jax.Array, augmentation: Augmentation
) -> Batch:
    """The training examples at ``indices``, augmented as asked."""
    images = augmented(key, splits.train.images[indices], augmentation)
    images = standardise(images, splits.mean, splits.std)
    return Batch(images, splits.train.labels[indices])


def epoch_order(key: jax.Array, size: int, batch_size: int) -> jax.Array:
    """A random order cut into minibatches, ``[size // batch_size, batch_size]``."""
    steps = size // batch_size
    order = jax.random.permutation(key, size)
    return order[: steps * batch_size].reshape(steps, batch_size)
