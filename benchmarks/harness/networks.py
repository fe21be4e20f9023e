"""The paper's two networks, with the sizes it does not give.

Section 4.1 names a three-layer feed-forward network for MNIST and a five-layer
convolutional one with batch normalisation and ReLU for Fashion-MNIST and CIFAR-10.
Widths, kernels and pooling are our choice: 784-128-64-10, and three 3×3 convolutions
of 16, 32 and 64 channels, each followed by 2×2 max-pooling, before dense layers of 64
and 10 units; a run may ask for others. ``cnn-global`` has the five layers in another
order: all convolutions but one dense layer, on each channel's maximum over the image.
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

from benchmarks.harness.convolution import Convolution, OverImages, max_pool
from benchmarks.harness.data import CLASSES

NetworkName = Literal["mlp", "cnn", "cnn-global", "cnn-deep"]
NAMES: tuple[str, ...] = get_args(NetworkName)
InitName = Literal["xavier", "he", "gaussian"]
TAKES: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (128, 64)},
    **{name: {"channels": (16, 32, 64)} for name in NAMES if name != "mlp"},
}
"""The settings of an experiment that each network has a use for, and their defaults."""

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
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        x = x.reshape(len(x), -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, kernel_init=self.kernel_init)(x))
        return nn.Dense(CLASSES, kernel_init=self.kernel_init)(x)


def batch_norm(x: jax.Array, train: bool) -> jax.Array:
    """A batch normalisation of the module that calls this."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


class CNN(nn.Module):
    """Convolution, normalisation, ReLU, pooling; then two dense layers."""

    channels: tuple[int, ...]
    kernel_init: nn.initializers.Initializer
    over_images: OverImages

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for channels in self.channels:
            x = Convolution(channels, self.kernel_init, self.over_images)(x)
            # ReLU after pooling is the same, on a quarter of the numbers.
            x = nn.relu(max_pool(batch_norm(x, train)))
        x = x.reshape(len(x), -1)
        x = nn.Dense(64, use_bias=False, kernel_init=self.kernel_init)(x)
        x = nn.relu(batch_norm(x, train))
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
    hidden: tuple[int, ...] = TAKES["mlp"]["hidden"],
    channels: tuple[int, ...] = TAKES["cnn"]["channels"],
    over_images: OverImages = jax.vmap,
) -> Network:
    """The network called ``name``.

    ``hidden`` are the widths of an ``mlp``, ``channels`` those of a ``cnn``, and
    ``over_images`` makes its convolutions, of an image, ones of a batch.

    Kernels start as ``kernel_init`` says, by default Xavier-normal. ``init`` raises
    ``UserError`` for an image that is too small for so many convolutions.
    """
    kernel_init = initialiser("xavier") if kernel_init is None else kernel_init
    if name == "mlp":
        return from_flax(MLP(hidden, kernel_init), convolutional=False)
    if name == "cnn":
        module = CNN(channels, kernel_init, over_images)
        return from_flax(module, convolutional=True)
    # The last convolution is pooled over the whole image instead.
    pooled, scale = tuple(range(len(channels) - 1)), 1.0
    if name == "cnn-deep":
        pooled, scale = pooled[1::2], 1 / 9
    module = GlobalCNN(channels, pooled, scale, kernel_init, over_images)
    return from_flax(module, convolutional=True)


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
