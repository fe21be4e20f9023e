"""A Flax linen network trained on MNIST without gradients, in node space.

    python examples/mnist_linen.py [folder of the dataset; default: from the hub]

Needs the extra "benchmarks", for the `datasets` library.
"""

import sys
from typing import Any

import datasets
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax
from qiaso_jax.flax import TrainState

BATCH_SIZE = 512
MODEL: Any = nn.Sequential(
    [nn.Dense(128), nn.relu, nn.Dense(64), nn.relu, nn.Dense(10)]
)


def load(source):
    splits = datasets.load_dataset(source).with_format("numpy")
    for split in ("train", "test"):
        columns = splits[split][:]
        images = np.stack(columns["image"]).reshape(-1, 784) / np.float32(255)
        yield jnp.asarray(images - 0.13), jnp.asarray(columns["label"])


def loss_fn(params, batch):
    """One loss per example: node_qiaso gives each its own superposition."""
    images, labels = batch
    logits = MODEL.apply({"params": params}, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@jax.jit
def train_step(state, batch):
    return state.apply_gradients(value_fn=loss_fn, batch=batch)


@jax.jit
def accuracy(params, images, labels):
    logits = MODEL.apply({"params": params}, images)
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels)


def main(source, epochs=5):
    (images, labels), test = load(source)
    steps = len(labels) // BATCH_SIZE
    schedule = optax.cosine_decay_schedule(3e-3, epochs * steps)
    state = TrainState.create(
        apply_fn=MODEL.apply,
        params=MODEL.init(jax.random.key(0), images[:1])["params"],
        tx=qiaso_jax.node_qiaso(30, sigma=0.02, optimizer=optax.adam(schedule)),
    )
    for epoch in range(epochs):
        order = jax.random.permutation(jax.random.key(epoch), len(labels))
        for indices in order[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE):
            state = train_step(state, (images[indices], labels[indices]))
        loss = optax.tree.get(state.opt_state, "expected_loss")
        hits = accuracy(state.params, *test)
        print(f"epoch {epoch + 1}: loss {loss:.4f}, test accuracy {hits:.4f}")
    return float(accuracy(state.params, *test))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ylecun/mnist")
