"""The passes: noise of none changes nothing, and the sites carry the whole gradient.

Back-propagation to the noise, brought back from there to the parameters, has to be
back-propagation to the parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import ARCHITECTURES

from qiaso_jax.node_space.examples import bind_model
from qiaso_jax.node_space.spaces import analyse
from qiaso_jax.program.equations import evaluate
from qiaso_jax.program.passes import Noise, Reached, harvest, perturb

SMOOTH = [
    name
    for name, a in ARCHITECTURES.items()
    if a.spaces != "refused" and not a.discontinuous
]
IN_WEIGHTS = [
    "dense",
    "gru_8",
    "attention",
    "convolution",
    "embedding",
    "local_losses",
    "scan_over_layers",
    "split_kernel",
    "solve_with_a_parameter",
    "hundredths_straight_through",
    "batch_norm_in_training",
    "layer_norm",
]
CASES = [*((n, "auto") for n in SMOOTH), *((n, "weights") for n in IN_WEIGHTS)]


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        yield


def doubled(tree):
    def cast(x):
        x = jnp.asarray(x)
        return x.astype(jnp.float64) if x.dtype == jnp.float32 else x

    return jax.tree.map(cast, tree)


def moving(leaves):
    """Those that can move, and the function that puts them back."""
    moves = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

    def merged(values):
        rows = iter(values)
        return [next(rows) if m else x for m, x in zip(moves, leaves, strict=True)]

    return [leaf for m, leaf in zip(moves, leaves, strict=True) if m], merged


def checked(model, space, forwards):
    """The losses without noise, and the gradient by way of the sites."""
    analysis = analyse(model, space)
    program, sites = analysis.program, analysis.sites
    indices = range(len(sites.sites))
    reached = Reached(program, sites, indices)
    silence = {
        i: jnp.zeros(s.shape, s.variable.aval.dtype) for i, s in enumerate(sites.sites)
    }

    @jax.jit
    def check(leaves, batch):
        clean = evaluate(program, [*leaves, *batch])

        def losses(feeds):
            noise = Noise(feeds, lambda index, feed: feed)
            return perturb(program, reached, noise, {}, clean)[0][0]

        def clean_pass(values):
            arguments = merged(values), batch, lambda *_: None
            return harvest(program, sites, *arguments, indices, {})[0]

        differentiate = jax.jacfwd if forwards else jax.grad
        cotangents = differentiate(lambda feeds: losses(feeds).mean())(silence)
        values, merged = moving(leaves)
        return losses(silence), jax.vjp(clean_pass, values)[1](cotangents)[0]

    return check(model.leaves, model.batch)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "space"), CASES)
def test_sites_carry_the_whole_gradient(name, space):
    a = ARCHITECTURES[name]
    params, batch = doubled(a.params), doubled(dict(a.batch))
    model = bind_model(a.value_fn, params, batch, a.settings.get("batch_argnames"))
    losses, found = checked(model, space, a.forward_mode)
    np.testing.assert_allclose(losses, a.value_fn(params, **batch), 1e-6, 1e-7)
    leaves, treedef = jax.tree.flatten(params)
    values, merged = moving(leaves)

    def mean(values):
        return a.value_fn(jax.tree.unflatten(treedef, merged(values)), **batch).mean()

    differentiate = jax.jacfwd if a.forward_mode else jax.grad
    expected = jax.jit(differentiate(mean))(values)
    # The test can fail: the gradient is something.
    assert any(np.any(np.abs(theirs) > 1e-4) for theirs in expected)
    for ours, theirs in zip(found, expected, strict=True):
        scale = np.max(np.abs(theirs), initial=0)
        np.testing.assert_allclose(ours, theirs, 1e-5, 1e-5 * scale + 1e-12)
