"""A Flax nnx network with batch normalisation trained on MNIST without gradients.

    python examples/mnist_nnx.py [folder of the dataset; default: from the hub]

Needs the extra "benchmarks", for the `datasets` library.
"""

import sys

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import qiaso_jax
from qiaso_jax.flax import nnx_refresh_batch_stats, nnx_value_fn

BATCH_SIZE = 512


def build(rngs):
    return nnx.Sequential(
        nnx.Linear(784, 32, rngs=rngs),
        nnx.BatchNorm(32, momentum=0.9, rngs=rngs),
        nnx.relu,
        nnx.Linear(32, 10, rngs=rngs),
    )


def load(source):
    splits = datasets.load_dataset(source).with_format("numpy")
    for split in ("train", "test"):
        columns = splits[split][:]
        images = np.stack(columns["image"]).reshape(-1, 784) / np.float32(255)
        yield jnp.asarray(images - 0.13), jnp.asarray(columns["label"])


def loss_fn(model, images, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(model(images), labels)
    return jnp.mean(losses)


@nnx.jit
def train_step(model, optimizer, images, labels):
    # Every candidate normalises with the statistics of its own activations.
    value_fn = nnx_value_fn(model, loss_fn)
    zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    optimizer.update(model, zeros, value_fn=value_fn, images=images, labels=labels)
    nnx_refresh_batch_stats(model, images)


@nnx.jit
def accuracy(model, images, labels):
    model = nnx.view(model, use_running_average=True)
    return jnp.mean(jnp.argmax(model(images), axis=-1) == labels)


def main(source, epochs=5):
    (images, labels), test = load(source)
    steps = len(labels) // BATCH_SIZE
    model = build(nnx.Rngs(0))
    schedule = optax.cosine_decay_schedule(1e-2, epochs * steps)
    tx = qiaso_jax.qiaso(30, sigma=0.02, optimizer=optax.adam(schedule))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for epoch in range(epochs):
        order = jax.random.permutation(jax.random.key(epoch), len(labels))
        for indices in order[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE):
            train_step(model, optimizer, images[indices], labels[indices])
        hits = accuracy(model, *test)
        print(f"epoch {epoch + 1}: test accuracy {hits:.4f}")
    return float(accuracy(model, *test))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ylecun/mnist")
