"""The three small models of ``python -m benchmarks.node_space.scans``.

Each is a pair of functions: ``init(key)`` gives the parameters, ``logits(params, x)``
those of each example. Inputs are random, labels those of the same model at other random
parameters, so that the gradients of the examples have something in common.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.harness import networks
from benchmarks.harness.data import CLASSES

Params = dict[str, jax.Array]
ModelName = Literal["gru", "attention", "cnn"]

INPUT = 8
HIDDEN = 16
ATTENTION_LENGTH = 16
ATTENTION_WIDTH = 16
IMAGE = (8, 8, 1)
CHANNELS = (8, 16)


class Model(NamedTuple):
    """A model and the shape of one of its inputs."""

    init: Callable[[jax.Array], Params]
    logits: Callable[[Params, jax.Array], jax.Array]
    input_shape: tuple[int, ...]

    def losses(self, params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        """Cross-entropy of each example."""
        return networks.cross_entropy(self.logits(params, x), y)


def build(name: ModelName, length: int) -> Model:
    """The model called ``name``; ``length`` is that of the sequences of the GRU."""
    if name == "gru":
        return Model(init_gru, gru_logits, (length, INPUT))
    if name == "attention":
        shape = (ATTENTION_LENGTH, ATTENTION_WIDTH)
        return Model(init_attention, attention_logits, shape)
    return Model(init_cnn, cnn_logits, IMAGE)


def batch_of(model: Model, key: jax.Array, size: int) -> dict[str, jax.Array]:
    """Normal inputs and their labels."""
    x_key, teacher_key = jax.random.split(key)
    x = jax.random.normal(x_key, (size, *model.input_shape))
    return {"x": x, "y": jnp.argmax(model.logits(model.init(teacher_key), x), axis=-1)}


def kernels(key: jax.Array, /, **shapes: tuple[int, ...]) -> Params:
    """Normal, of variance 1 / fan-in; all axes but the last are fan-in."""
    found = {}
    for name, shape in shapes.items():
        key, own_key = jax.random.split(key)
        fan_in = jnp.prod(jnp.array(shape[:-1]))
        found[name] = jax.random.normal(own_key, shape) / jnp.sqrt(fan_in)
    return found


def init_gru(key: jax.Array) -> Params:
    """Three gates side by side in each kernel."""
    found = kernels(
        key,
        input=(INPUT, 3 * HIDDEN),
        recurrent=(HIDDEN, 3 * HIDDEN),
        head=(HIDDEN, CLASSES),
    )
    return found | {"bias": jnp.zeros(3 * HIDDEN), "head_bias": jnp.zeros(CLASSES)}


def gru_logits(params: Params, x: jax.Array) -> jax.Array:
    """Of the last state; the scan runs over time, ``x`` is ``[B, T, INPUT]``."""

    def step(h: jax.Array, x_t: jax.Array) -> tuple[jax.Array, None]:
        from_input = x_t @ params["input"] + params["bias"][None]
        reset_x, update_x, new_x = jnp.split(from_input, 3, axis=-1)
        reset_h, update_h, new_h = jnp.split(h @ params["recurrent"], 3, axis=-1)
        update = jax.nn.sigmoid(update_x + update_h)
        new = jnp.tanh(new_x + jax.nn.sigmoid(reset_x + reset_h) * new_h)
        return (1 - update) * new + update * h, None

    start = jnp.zeros((len(x), HIDDEN))
    h, _ = jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))
    return h @ params["head"] + params["head_bias"][None]


def init_attention(key: jax.Array) -> Params:
    """Queries, keys, values, what they are added up to, and the head."""
    square = (ATTENTION_WIDTH, ATTENTION_WIDTH)
    return kernels(
        key,
        query=square,
        key=square,
        value=square,
        output=square,
        head=(ATTENTION_WIDTH, CLASSES),
    )


def attention_logits(params: Params, x: jax.Array) -> jax.Array:
    """One head with a residual connection, and the mean over the positions."""
    query, key, value = (x @ params[name] for name in ("query", "key", "value"))
    scores = jnp.einsum("bqd,bkd->bqk", query, key) / jnp.sqrt(ATTENTION_WIDTH)
    mixed = jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores), value)
    pooled = jnp.mean(x + mixed @ params["output"], axis=1)
    return pooled @ params["head"]


def init_cnn(key: jax.Array) -> Params:
    """Two 3×3 convolutions and the head."""
    first, second = CHANNELS
    height, width, channels = IMAGE
    found = kernels(
        key,
        first=(3, 3, channels, first),
        second=(3, 3, first, second),
        head=(height * width // 16 * second, CLASSES),
    )
    return found | {"first_bias": jnp.zeros(first), "second_bias": jnp.zeros(second)}


def convolved(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """A convolution with zero padding, ReLU and the maximum over 2×2 windows."""
    x = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.nn.relu(x + bias[None, None, None])
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )


def cnn_logits(params: Params, x: jax.Array) -> jax.Array:
    """Of images, shape ``[B, 8, 8, 1]``."""
    x = convolved(x, params["first"], params["first_bias"])
    x = convolved(x, params["second"], params["second_bias"])
    return x.reshape(len(x), -1) @ params["head"]
