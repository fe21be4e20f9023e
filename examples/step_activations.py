"""A network of step activations, trained without gradients and beside a surrogate.

    python examples/step_activations.py [--data-dir FOLDER] [--epochs N]

No useful gradient exists: every activation is flat but for its jumps. QIASO in node
space needs none. Adam gets one from a straight-through estimator, which pretends on
the way back that the step was a clipped line. FOLDER is a copy of MNIST as on the hub,
``ylecun/mnist``, which needs the `datasets` library (extra "benchmarks"); without it,
the digits of scikit-learn are used (extra "examples").
"""

import argparse
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax

BATCH_SIZE = 512


def step(x):
    return jnp.where(x > 0, 1.0, -1.0)


def straight_through(x):
    line = jnp.clip(x, -1, 1)
    return line + jax.lax.stop_gradient(step(x) - line)


class Network(nn.Module):
    """Dense layers of ±1."""

    activation: callable

    @nn.compact
    def __call__(self, x):
        """Logits of standardised images."""
        for width in (256, 128):
            x = self.activation(nn.Dense(width)(x))
        return nn.Dense(10)(x) / jnp.sqrt(128)


def load(data_dir):
    """Standardised images ``[N, pixels]`` and labels, for training and for testing."""
    if data_dir is None:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        images, labels = images[order] / 16, labels[order]
        train, test = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])
    else:
        import datasets

        splits = datasets.load_dataset(data_dir).with_format("numpy")
        columns = [splits[name][:] for name in ("train", "test")]
        train, test = (
            (np.stack(c["image"]).reshape(-1, 784) / 255, c["label"]) for c in columns
        )
    mean, deviation = train[0].mean(), train[0].std()
    return [
        (jnp.asarray((x - mean) / deviation, jnp.float32), jnp.asarray(y, jnp.int32))
        for x, y in (train, test)
    ]


def losses(model, params, images, labels):
    """Cross-entropy, one per example."""
    logits = model.apply(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def train(name, model, tx, update, data, epochs):
    """Trains with ``update(tx, state, params, images, labels)``; the test accuracy."""
    (images, labels), (test_images, test_labels) = data
    params = model.init(jax.random.key(0), images[:1])
    batch_size = min(BATCH_SIZE, len(labels) // 4)
    steps = len(labels) // batch_size

    def one_step(carry, rows):
        params, state = carry
        updates, state = update(tx, state, params, images[rows], labels[rows])
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def one_epoch(carry, key):
        order = jax.random.permutation(key, len(labels))[: steps * batch_size]
        return jax.lax.scan(one_step, carry, order.reshape(steps, batch_size))[0]

    @jax.jit
    def accuracy(params):
        predicted = jnp.argmax(model.apply(params, test_images), axis=-1)
        return jnp.mean(predicted == test_labels)

    carry, start = (params, tx.init(params)), time.perf_counter()
    for epoch in range(epochs):
        carry = one_epoch(carry, jax.random.key(epoch))
        if (epoch + 1) % max(1, epochs // 5) == 0:
            seconds = time.perf_counter() - start
            hits = float(accuracy(carry[0]))
            print(
                f"{name}, epoch {epoch + 1}: {hits:.2%} of the test ({seconds:.0f} s)"
            )
    return float(accuracy(carry[0]))


def main(data_dir=None, epochs=20):
    data = load(data_dir)
    rate = optax.cosine_decay_schedule(
        3e-3, epochs * max(4, len(data[0][1]) // BATCH_SIZE)
    )
    plain, surrogate = Network(step), Network(straight_through)

    def gradient_free(tx, state, params, images, labels):
        return tx.update(
            None,
            state,
            params,
            value_fn=lambda p, images, labels: losses(plain, p, images, labels),
            images=images,
            labels=labels,
        )

    def with_surrogate(tx, state, params, images, labels):
        grads = jax.grad(lambda p: losses(surrogate, p, images, labels).mean())(params)
        return tx.update(grads, state, params)

    node = qiaso_jax.node_qiaso(30, sigma=0.3, optimizer=optax.adam(rate))
    ours = train("node_qiaso", plain, node, gradient_free, data, epochs)
    adam = optax.adam(rate)
    theirs = train("straight-through", surrogate, adam, with_surrogate, data, epochs)
    print(f"no gradient: {ours:.2%}; straight-through gradient: {theirs:.2%}")
    return ours, theirs


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=int, default=20)
    main(**vars(parser.parse_args()))
