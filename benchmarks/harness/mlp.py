"""A perceptron with one hidden layer for scikit-learn's digits, 64-hidden-10."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.data import CLASSES

Params = dict[str, jax.Array]

KERNELS = ("kernel_1", "kernel_2")


def initial(seed: int, hidden: int, unit: float = 1.0) -> Params:
    """He's normal initial weights, in units of ``unit``; biases are zero."""
    rng = np.random.default_rng(seed)

    def kernel(*shape: int) -> jax.Array:
        w = rng.standard_normal(shape) * np.sqrt(2 / shape[0])
        return jnp.asarray(w / unit, jnp.float32)

    return {
        "kernel_1": kernel(64, hidden),
        "bias_1": jnp.zeros(hidden),
        "kernel_2": kernel(hidden, CLASSES),
        "bias_2": jnp.zeros(CLASSES),
    }


def logits(params: Params, images: jax.Array) -> jax.Array:
    """Of images of 64 pixels, shape ``[B, ...]``."""
    images = images.reshape(len(images), -1)
    hidden = jax.nn.relu(images @ params["kernel_1"] + params["bias_1"][None])
    return hidden @ params["kernel_2"] + params["bias_2"][None]
