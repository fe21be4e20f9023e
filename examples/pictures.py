"""What ``qiaso_jax.plot`` draws: two searches, one of them at a glance, and a network.

    python examples/pictures.py [--output FOLDER]

Writes every picture as SVG and PNG.
"""

import argparse
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import qiaso_jax
from qiaso_jax import plot


def rastrigin(x):
    """Many minima; the global one is at 0."""
    return jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x) + 10)


def search(tx, params, steps):
    """The state, the report and the probabilities of every step, and where it ends."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(None, state, params, value_fn=rastrigin)
        carry = optax.apply_updates(params, updates), state
        return carry, (state.info, state.log_amplitudes)

    return jax.jit(
        lambda: jax.lax.scan(step, (params, tx.init(params)), length=steps)
    )()


def superposition():
    """Candidates that gather probability until they collapse, and tunnel on the way."""
    tx = qiaso_jax.qiaso(
        30,
        sigma=0.5,
        eta=0.01,
        loss_scaling=None,
        collapse_every=20,
        tunnelling=qiaso_jax.gaussian_tunnelling(0.5, 0.3, 0.97),
        optimizer=optax.scale(-1.0),
    )
    return search(tx, jnp.array([3.2, -4.1]), 60)


class Network(nn.Module):
    """A convolution with few weights, dense layers with many, and a quantised scale."""

    @nn.compact
    def __call__(self, x):
        """Logits ``[batch, 10]`` of images ``[batch, 28, 28, 1]``."""
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        scale = self.param("scale", nn.initializers.ones, ())
        return nn.Dense(10)(x) * jnp.round(8 * scale) / 8


def network_sites():
    """Where ``node_qiaso`` puts the noise of ``Network``."""
    network: Any = Network()
    x, y = jax.random.normal(jax.random.key(0), (16, 28, 28, 1)), jnp.arange(16) % 10

    def loss(params, x, y):
        logits = network.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    return qiaso_jax.node_sites(loss, network.init(jax.random.key(1), x), x=x, y=y)


def main(output):
    output.mkdir(parents=True, exist_ok=True)
    (params, _), (info, log_amplitudes) = superposition()
    plot.save(plot.probabilities(log_amplitudes), output / "probabilities")
    plot.save(plot.report(info), output / "report")

    tx = qiaso_jax.qiaso(30, sigma=0.7)
    params = jnp.array([1.4, -1.2])
    ax = plot.landscape(tx, tx.init(params), params, rastrigin, resolution=121)
    plot.save(ax, output / "landscape")

    listed = network_sites()
    plot.save(plot.sites(listed), output / "sites")
    print(plot.site_table(listed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/pictures"))
    main(parser.parse_args().output)
