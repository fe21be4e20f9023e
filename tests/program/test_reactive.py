"""Which nodes react: against noise at each of them alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.node_space.examples import bind_model
from qiaso_jax.node_space.listing import node_sites
from qiaso_jax.node_space.spaces import analyse
from qiaso_jax.program.equations import evaluate
from qiaso_jax.program.passes import Noise, Reached, perturb
from qiaso_jax.program.reactive import reactive_nodes


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape) / 2


def brute_force(value_fn, params, kwargs, sigma):
    """Masks of the nodes whose own noise of ±σ changes a loss, one per site."""
    model = bind_model(value_fn, params, kwargs, None)
    analysis = analyse(model, "node")
    program, sites = analysis.program, analysis.sites
    reached = Reached(program, sites, range(len(sites.sites)))

    @jax.jit
    def masks_of(leaves, batch):
        clean = evaluate(program, [*leaves, *batch])

        def losses_of(feeds):
            noise = Noise(dict(enumerate(feeds)), lambda i, feed: feed)
            return perturb(program, reached, noise, {}, clean)[0][0]

        silence = [jnp.zeros(s.shape) for s in sites.sites]
        before = losses_of(silence)
        masks, ours = [], []
        for i, site in enumerate(sites.sites):

            def changes(noise, i=i):
                noise = [
                    *silence[:i],
                    noise.reshape(silence[i].shape),
                    *silence[i + 1 :],
                ]
                # More than rounding, far less than a reaction.
                return jnp.any(jnp.abs(losses_of(noise) - before) > 1e-6)

            alone = sigma * jnp.eye(silence[i].size)
            mask = jax.vmap(changes)(alone) | jax.vmap(changes)(-alone)
            masks.append(mask.reshape(silence[i].shape))
            found = reactive_nodes(program, site.variable, site.uses, clean, sigma)
            ours.append(jnp.ones_like(masks[i]) if found is None else found)
        return masks, ours

    return masks_of(model.leaves, model.batch)


def pooled(pool):
    def value_fn(params, x):
        h = jnp.tanh(pool(jax.nn.relu(x @ params["w"])))
        return jnp.sum(h.reshape(x.shape[0], -1), axis=1)

    return value_fn


def windows(size, stride, padding):
    return lambda h: jax.lax.reduce_window(
        h, -jnp.inf, jax.lax.max, (1, size, 1), (1, stride, 1), padding
    )


@pytest.mark.parametrize(
    ("pool", "sigma"),
    [
        (lambda h: h, 1e-3),
        (windows(2, 2, "VALID"), 1e-3),
        (windows(3, 2, "SAME"), 1e-3),
        (windows(3, 1, ((0, 0), (1, 1), (0, 0))), 1e-3),
        (windows(2, 3, "VALID"), 1e-3),
        (lambda h: h.reshape(h.shape[0], 4, 2, -1).max(axis=2), 1e-3),
        (lambda h: jax.nn.relu(h[:, :6].max(axis=1) - 0.1), 1e-3),
        (lambda h: jnp.where(h > 0.2, 1.0, 0.0), 0.1),
    ],
    ids=["relu", "2/2", "3/2 same", "3/1 padded", "2/3", "reshape", "global", "step"],
)
def test_reactive_nodes_are_those_that_react(pool, sigma):
    # The seed keeps all runners-up more than 2 σ behind, where finite steps and the
    # clean winners agree.
    masks, ours = brute_force(
        pooled(pool), {"w": normal(4, 2, 3)}, {"x": normal(11, 2, 8, 2)}, sigma
    )
    for mask, found in zip(masks, ours, strict=True):
        np.testing.assert_array_equal(found, mask)
    assert 0 < masks[0].mean() < 1


def test_nodes_within_a_loop_react_at_their_own_iteration():
    # The first of three iterations has all inputs below the ReLU's bend.
    def value_fn(params, x):
        def step(carry, column):
            return carry + jax.nn.relu(column @ params["w"]), None

        start = jnp.zeros((x.shape[0], 2))
        return jnp.sum(jax.lax.scan(step, start, x.swapaxes(0, 1))[0], axis=1)

    x = jnp.ones((4, 3, 1)) * jnp.array([-1.0, 1.0, 1.0])[None, :, None]
    (site,) = node_sites(value_fn, {"w": jnp.ones((1, 2))}, space="node", x=x)
    assert (site.nodes, site.reactive) == (6, 4.0)
