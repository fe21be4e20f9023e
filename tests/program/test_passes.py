"""The passes: noise of none changes nothing, and the sites carry the whole gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import ARCHITECTURES

from qiaso_jax.node_space.examples import bind_model
from qiaso_jax.node_space.spaces import analyse
from qiaso_jax.program.passes import Noise, Reached, harvest, perturb

SMOOTH = [
    name
    for name, a in ARCHITECTURES.items()
    if a.spaces != "refused" and not a.discontinuous and not a.forward_mode
]


def nothing(index, level, clean):
    return None


@pytest.mark.parametrize(
    ("name", "space"),
    [(name, "auto") for name in SMOOTH] + [(name, "weights") for name in SMOOTH[::8]],
)
def test_sites_carry_the_whole_gradient(name, space):
    # Back-propagation to the noise, brought back from there to the parameters, has to
    # be back-propagation to the parameters.
    a = ARCHITECTURES[name]
    model = bind_model(a.value_fn, a.params, a.batch, a.settings.get("batch_argnames"))
    analysis = analyse(model, space)
    program, sites = analysis.program, analysis.sites
    indices = range(len(sites.sites))
    silence = {
        i: jnp.zeros(s.shape, s.variable.aval.dtype) for i, s in enumerate(sites.sites)
    }
    moving = [
        i for i, x in enumerate(model.leaves) if jnp.issubdtype(x.dtype, jnp.floating)
    ]

    @jax.jit
    def check(leaves, batch):
        def clean_pass(moved):
            full = list(leaves)
            for i, leaf in zip(moving, moved, strict=True):
                full[i] = leaf
            return harvest(program, sites, full, batch, nothing, indices, {})

        moved = [leaves[i] for i in moving]
        _, pull, (clean, _) = jax.vjp(clean_pass, moved, has_aux=True)
        reached = Reached(program, sites, indices)

        def losses(feeds):
            noise = Noise(feeds, lambda i, feed: feed)
            return perturb(program, reached, noise, {}, clean)[0][0]

        cotangents = jax.grad(lambda feeds: losses(feeds).mean())(silence)
        return losses(silence), pull(cotangents)[0]

    losses, found = check(model.leaves, model.batch)
    np.testing.assert_allclose(
        losses, a.value_fn(a.params, **a.batch), rtol=1e-5, atol=1e-6
    )

    def mean_loss(moved):
        full = list(model.leaves)
        for i, leaf in zip(moving, moved, strict=True):
            full[i] = leaf
        return model.losses(full, model.batch).mean()

    expected = jax.grad(mean_loss)([model.leaves[i] for i in moving])
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=5e-4, atol=2e-6)
