"""Convolutions that stay quick when they are mapped over seeds or candidates."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.cli import UserError

OverBatch = Callable[[jax.Array], jax.Array]
OverImages = Callable[[Callable[[jax.Array], jax.Array]], OverBatch]

PATCHES = 5 * 2**18
"""So many numbers are patches of 3×3 pixels at a time on a CPU: 5 MiB."""


def in_parts(of_image: Callable[[jax.Array], jax.Array]) -> OverBatch:
    """``jax.vmap``, on a CPU over a few images at a time, for backward passes.

    Patches are nine times the image: so many at a time fit the cache, and they are made
    again for the backward pass. ``node_qiaso`` cannot look into the loop over parts.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(of_image)

    def of_batch(x: jax.Array) -> jax.Array:
        images = max(PATCHES // (9 * x[0].size), 1)
        # A power of two, as minibatches are: a remainder would cost a copy.
        images = 1 << (images.bit_length() - 1)
        return jax.lax.map(jax.checkpoint(of_image), x, batch_size=images)

    return of_batch


class Convolution(nn.Module):
    """A 3×3 convolution with zero padding, as matrix products.

    Mapped over seeds or candidates they stay batches of matrix products. XLA makes a
    grouped convolution of a mapped ``nn.Conv``, which on a CPU took minutes per epoch.
    """

    features: int
    kernel_init: nn.initializers.Initializer
    over_images: OverImages

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, height, width, channels = x.shape
        kernel = self.param("kernel", self.kernel_init, (3, 3, channels, self.features))
        matrix = kernel.reshape(-1, self.features)

        def convolved(image: jax.Array) -> jax.Array:
            padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
            patches = [
                padded[i : i + height, j : j + width]
                for i in range(3)
                for j in range(3)
            ]
            return jnp.concatenate(patches, axis=-1) @ matrix

        return self.over_images(convolved)(x)


def max_pool(x: jax.Array) -> jax.Array:
    """The maximum over 2×2 windows; an odd last row or column is left out."""
    batch, height, width, channels = x.shape
    if min(height, width) < 2:
        raise UserError(
            "--channels names too many convolutions: each pooling halves the image, "
            f"and one was left with {height}x{width} pixels"
        )
    height, width = height // 2, width // 2
    x = x[:, : 2 * height, : 2 * width]
    return x.reshape(batch, height, 2, width, 2, channels).max(axis=(2, 4))
