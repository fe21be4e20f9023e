"""A network of step activations, trained without gradients and beside a surrogate.

    python examples/step_activations.py [--data-dir FOLDER] [--epochs N]

No useful gradient exists: every activation is flat but for its jump. QIASO in node
space needs none. Adam gets one from a straight-through estimator, which pretends on
the way back that the step was a clipped line. FOLDER is a copy of MNIST as on the hub,
``ylecun/mnist``, and needs the `datasets` library (extra "benchmarks"); without it,
the digits of scikit-learn are used (extra "examples").
"""

import argparse
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax


def step(x):
    return jnp.where(x > 0, 1.0, -1.0)


def straight_through(x):
    line = jnp.clip(x, -1, 1)
    return line + jax.lax.stop_gradient(step(x) - line)


class Network(nn.Module):
    """Dense layers of ±1."""

    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x):
        """Logits of standardised images."""
        for width in (256, 128):
            x = self.activation(nn.Dense(width)(x))
        return nn.Dense(10)(x)


def load(data_dir):
    """Standardised images ``[N, pixels]`` and labels, for training and for testing."""
    if data_dir is None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        train, test = ((images[rows], labels[rows]) for rows in np.split(order, [1400]))
    else:
        import datasets
        from datasets.exceptions import DatasetsError

        try:
            splits = datasets.load_dataset(data_dir).with_format("numpy")
            columns = [splits[name][:] for name in ("train", "test")]
            train, test = (
                (np.stack(c["image"]).reshape(-1, 784), c["label"]) for c in columns
            )
        except (OSError, KeyError, ValueError, DatasetsError) as e:
            raise SystemExit(
                "--data-dir must be a copy of ylecun/mnist, with the columns image and "
                f"label in the splits train and test; got {data_dir}: {e}"
            ) from e
    mean, deviation = train[0].mean(), train[0].std()
    return [
        (jnp.asarray((x - mean) / deviation, jnp.float32), jnp.asarray(y, jnp.int32))
        for x, y in (train, test)
    ]


def losses(model, params, images, labels):
    """Cross-entropy, one per example."""
    logits = model.apply(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def train(name, model, tx, update, data, epochs, steps):
    """Trains by ``update(state, params, images, labels)``; returns the accuracy."""
    (images, labels), (test_images, test_labels) = data
    params = model.init(jax.random.key(0), images[:1])

    def one_step(carry, rows):
        params, state = carry
        updates, state = update(state, params, images[rows], labels[rows])
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def one_epoch(carry, key):
        order = jax.random.permutation(key, len(labels))
        order = order[: len(labels) // steps * steps].reshape(steps, -1)
        (params, state), _ = jax.lax.scan(one_step, carry, order)
        predicted = jnp.argmax(model.apply(params, test_images), axis=-1)
        return (params, state), jnp.mean(predicted == test_labels)

    carry, accuracy = (params, tx.init(params)), jnp.zeros(())
    for epoch in range(epochs):
        carry, accuracy = one_epoch(carry, jax.random.key(epoch))
        print(f"{name}, epoch {epoch + 1}: test accuracy {accuracy:.2%}")
    return float(accuracy)


def main(data_dir=None, epochs=20):
    data = load(data_dir)
    steps = max(16, len(data[0][1]) // 512)
    adam = optax.adam(optax.cosine_decay_schedule(1e-3, epochs * steps))
    node = qiaso_jax.node_qiaso(30, sigma=0.2, optimizer=adam, examples=0.75)
    plain, surrogate = Network(step), Network(straight_through)

    def value_fn(params, images, labels):
        return losses(plain, params, images, labels)

    def gradient_free(state, params, images, labels):
        nothing = optax.tree.zeros_like(params)
        batch = {"images": images, "labels": labels}
        return node.update(nothing, state, params, value_fn=value_fn, **batch)

    def with_surrogate(state, params, images, labels):
        grads = jax.grad(lambda p: losses(surrogate, p, images, labels).mean())(params)
        return adam.update(grads, state, params)

    ours = train("node_qiaso", plain, node, gradient_free, data, epochs, steps)
    theirs = train("surrogate", surrogate, adam, with_surrogate, data, epochs, steps)
    print(f"no gradient: {ours:.2%}; straight-through gradient: {theirs:.2%}")
    return ours, theirs


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=int, default=20)
    main(**vars(parser.parse_args()))
