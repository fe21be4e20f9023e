"""The paper's two networks, with the sizes it does not give.

Section 4.1 names a three-layer feed-forward network for MNIST and a five-layer
convolutional one with batch normalisation and ReLU for Fashion-MNIST and CIFAR-10.
Widths, kernels and pooling are our choice: 784-128-64-10, and three 3×3 convolutions
of 16, 32 and 64 channels, each followed by 2×2 max-pooling, before dense layers of 64
and 10 units; a run may ask for others. Layer normalisation in place of batch
normalisation makes a candidate's loss independent of the other examples' activations,
which suits populations. ``cnn-global`` has the five layers in another order: all
convolutions but one dense layer, on each channel's maximum over the image.
``cnn-deep`` is the same with a pooling after every second convolution only, and a
ninth of the logits: deeper than the paper's for as many products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks.cli import UserError
from benchmarks.harness.data import CLASSES

NetworkName = Literal[
    "mlp", "mlp-layernorm", "cnn", "cnn-layernorm", "cnn-global", "cnn-deep"
]
NAMES: tuple[str, ...] = get_args(NetworkName)
InitName = Literal["xavier", "he", "gaussian"]

OverBatch = Callable[[jax.Array], jax.Array]
OverImages = Callable[[Callable[[jax.Array], jax.Array]], OverBatch]
Params = Any
BatchStats = Any


class Batch(NamedTuple):
    """Standardised images ``[B, H, W, C]`` and labels ``int32[B]``."""

    images: jax.Array
    labels: jax.Array


class Network(NamedTuple):
    """A classifier as two functions.

    ``init(key, images)`` gives ``(params, batch_stats)``; the latter is empty without
    batch normalisation. ``apply(params, batch_stats, images, train)`` gives
    ``(logits, batch_stats)``.
    """

    init: Callable[[jax.Array, jax.Array], tuple[Params, BatchStats]]
    apply: Callable[[Params, BatchStats, jax.Array, bool], tuple[jax.Array, BatchStats]]
    convolutional: bool


class MLP(nn.Module):
    """Dense layers with ReLU between them."""

    widths: tuple[int, ...]
    layer_norm: bool
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        x = x.reshape(len(x), -1)
        for width in self.widths:
            x = nn.Dense(width, kernel_init=self.kernel_init)(x)
            x = nn.LayerNorm()(x) if self.layer_norm else x
            x = nn.relu(x)
        return nn.Dense(CLASSES, kernel_init=self.kernel_init)(x)


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


def batch_norm(x: jax.Array, train: bool) -> jax.Array:
    """A batch normalisation of the module that calls this."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


class CNN(nn.Module):
    """Convolution, normalisation, ReLU, pooling; then two dense layers."""

    channels: tuple[int, ...]
    width: int
    layer_norm: bool
    kernel_init: nn.initializers.Initializer
    over_images: OverImages

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def normalised(x: jax.Array) -> jax.Array:
            if self.layer_norm:
                return nn.LayerNorm()(x)
            return batch_norm(x, train)

        for channels in self.channels:
            x = Convolution(channels, self.kernel_init, self.over_images)(x)
            # ReLU after pooling is the same, on a quarter of the numbers.
            x = nn.relu(max_pool(normalised(x)))
        x = x.reshape(len(x), -1)
        x = nn.Dense(self.width, use_bias=False, kernel_init=self.kernel_init)(x)
        x = nn.relu(normalised(x))
        return nn.Dense(CLASSES, kernel_init=self.kernel_init)(x)


class GlobalCNN(nn.Module):
    """Convolution, pooling where ``pooled``, normalisation, ReLU; then a dense layer.

    The dense layer sees each channel's maximum over the image. ``scale`` times what it
    makes are the logits: small ones at the start allow a high rate.
    """

    channels: tuple[int, ...]
    pooled: tuple[int, ...]
    scale: float
    kernel_init: nn.initializers.Initializer
    over_images: OverImages

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, channels in enumerate(self.channels):
            x = Convolution(channels, self.kernel_init, self.over_images)(x)
            x = max_pool(x) if i in self.pooled else x
            x = nn.relu(batch_norm(x, train))
        x = x.max(axis=(1, 2))
        return self.scale * nn.Dense(CLASSES, kernel_init=self.kernel_init)(x)


def initialiser(
    name: InitName, mean: float = 0.0, spread: float = 0.05
) -> nn.initializers.Initializer:
    """How kernels start; ``mean`` and ``spread`` are those of "gaussian" alone."""
    if name == "xavier":
        return nn.initializers.xavier_normal()
    if name == "he":
        return nn.initializers.he_normal()

    def gaussian(
        key: Any, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None
    ) -> Any:
        del out_sharding
        return mean + spread * jax.random.normal(key, shape, dtype)

    return gaussian


def build(
    name: str,
    kernel_init: nn.initializers.Initializer | None = None,
    hidden: tuple[int, ...] = (128, 64),
    channels: tuple[int, ...] = (16, 32, 64),
    over_images: OverImages = jax.vmap,
) -> Network:
    """The network called ``name``.

    ``hidden`` are the widths of an ``mlp``, ``channels`` those of a ``cnn``, and
    ``over_images`` makes its convolutions, of an image, ones of a batch.

    Kernels start as ``kernel_init`` says, by default Xavier-normal. ``init`` raises
    ``UserError`` for an image that is too small for so many convolutions.
    """
    layer_norm = name.endswith("-layernorm")
    kernel_init = initialiser("xavier") if kernel_init is None else kernel_init
    convolutional = name.startswith("cnn")
    module: nn.Module
    if name in ("cnn-global", "cnn-deep"):
        deep = name == "cnn-deep"
        # The last convolution is pooled over the whole image instead.
        pooled = tuple(
            range(1, len(channels) - 1, 2) if deep else range(len(channels) - 1)
        )
        scale = 1 / 9 if deep else 1.0
        module = GlobalCNN(channels, pooled, scale, kernel_init, over_images)
    elif convolutional:
        module = CNN(channels, 64, layer_norm, kernel_init, over_images)
    else:
        module = MLP(hidden, layer_norm, kernel_init)

    return from_flax(module, convolutional)


def from_flax(module: nn.Module, convolutional: bool) -> Network:
    """A module that is called with images and ``train``."""

    def init(key: jax.Array, images: jax.Array) -> tuple[Params, BatchStats]:
        variables = module.init(key, images, False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: Params, batch_stats: BatchStats, images: jax.Array, train: bool
    ) -> tuple[jax.Array, BatchStats]:
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = module.apply(
            variables, images, train, mutable=["batch_stats"] if train else []
        )
        return logits, updated.get("batch_stats", batch_stats)

    return Network(init, apply, convolutional)


def cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float = 0.0
) -> jax.Array:
    """−log softmax of the true class, one number per example, shape ``[B]``.

    With ``smoothing``, a share of so much is its mean over all classes instead.
    """
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, CLASSES), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the largest logit is the true class's, ``bool[B]``."""
    return jnp.argmax(logits, axis=-1) == labels
