"""Where losses tell nothing: the centre and the inner optimizer stay as they are."""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import PARAMS, REGISTRY, every_optimizer, steps

import qiaso_jax
from qiaso_jax import factorised_qiaso, node_qiaso, qiaso
from qiaso_jax.node_space.kernel import amplify, pair_weights

MAKERS = {
    "pairs": lambda **kw: qiaso(8, 0.1, **kw),
    "odd": lambda **kw: qiaso(7, 0.1, antithetic=False, **kw),
    "ranks": lambda **kw: qiaso(8, 0.1, loss_scaling="rank", **kw),
    "as they are": lambda **kw: qiaso(8, 0.1, loss_scaling=None, **kw),
    "callable": lambda **kw: qiaso(8, 0.1, loss_scaling=lambda x: 1e6 * x, **kw),
    "Gibbs": lambda **kw: qiaso(8, 0.1, kl_strength=None, **kw),
    "best": lambda **kw: qiaso(8, 0.1, collapse="best", **kw),
    "sample": lambda **kw: qiaso(8, 0.1, collapse="sample", **kw),
    "later": lambda **kw: qiaso(8, 0.1, collapse_every=3, **kw),
    "exact": lambda **kw: factorised_qiaso(5, 0.1, **kw),
    "measured": lambda **kw: factorised_qiaso(5, 0.1, num_measurements=12, **kw),
    "node": lambda **kw: node_qiaso(8, 0.1, **kw),
    "node, exponential": lambda **kw: node_qiaso(8, 0.1, 1.0, examples=1.0, **kw),
}


def constant(params, x, y):
    return jnp.full(y.shape, 3.7) + jnp.sign(jnp.abs(x @ params["w"])) * 0


def softmax_total(params, x, y):
    """1 up to rounding, whatever the parameters are."""
    logits = x @ jnp.outer(params["w"], jnp.arange(1.0, 3.0)) + params["b"]
    return jnp.sum(jax.nn.softmax(logits), axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value_fn"),
    [*((name, softmax_total) for name in MAKERS), ("pairs", constant)],
)
def test_a_constant_loss_moves_nothing(name, value_fn):
    tx = MAKERS[name](optimizer=optax.adam(0.1))
    fun = value_fn
    if not name.startswith("node"):

        def fun(params, x, y):
            return jnp.mean(value_fn(params, x, y))

    after, state = steps(tx, fun, num_steps=200)
    chex.assert_trees_all_equal(after, PARAMS)
    chex.assert_trees_all_equal(state.opt_state, tx.init(PARAMS).opt_state)
    assert state.info.num_flat == (66 if name == "later" else 200)
    assert state.info.num_skipped == 0
    assert not getattr(state.info, "collapsed", False)
    assert state.step == 200


@pytest.mark.slow
@every_optimizer
def test_losses_that_differ_are_not_flat(name):
    entry = REGISTRY[name]
    _, state = steps(entry.make(), entry.value_fn, num_steps=4)
    assert state.info.num_flat == 0


def test_what_has_been_learned_before_a_flat_stretch_counts():
    """Log p is no longer the prepared one, so that the collapse moves."""
    tx = qiaso(8, 0.1, collapse_every=3)

    def loss(params, t):
        return jnp.where(t == 0, jnp.sum(params["w"]), 1.0)

    @jax.jit
    def step(state, t):
        return tx.update(None, state, PARAMS, value_fn=loss, t=t)

    state, after = tx.init(PARAMS), PARAMS
    for t in range(3):
        told = state
        updates, state = step(state, t)
        if t:
            # Equal losses leave the amplitudes as they are.
            chex.assert_trees_all_close(
                state.log_amplitudes if t < 2 else told.log_amplitudes,
                told.log_amplitudes,
                atol=1e-6,
            )
    after = optax.apply_updates(after, updates)
    assert jnp.sum(after["w"]) < jnp.sum(PARAMS["w"])
    assert state.info.collapsed
    assert state.info.num_flat == 0


def test_stored_candidates_and_tunnelling_go_on():
    tx = qiaso(
        8, 0.1, collapse_every=2, tunnelling=qiaso_jax.gaussian_tunnelling(decay=1.0)
    )

    @jax.jit
    def step(state):
        return tx.update(
            None, state, PARAMS, value_fn=lambda p: 0 * jnp.sum(p["w"]) + 2.0
        )

    state = tx.init(PARAMS)
    seen = [state.candidates["w"]]
    for _ in range(4):
        updates, state = step(state)
        assert not np.any(updates["w"])
        assert state.info.num_tunnelled == 7
        seen.append(state.candidates["w"])
    # Candidate 0, the first of the most probable, stays until all are prepared anew.
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert not np.array_equal(seen[1][0], seen[2][0])
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(seen))
    assert state.info.num_flat == 2


def test_a_pseudo_gradient_of_nothing_is_zero():
    tx = qiaso(7, 0.1, antithetic=False)

    def constant(params):
        return 0 * jnp.sum(params["w"]) + 2.0

    step = jax.jit(partial(qiaso_jax.pseudo_gradient, tx, value_fn=constant))
    gradient, state = step(tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(gradient, optax.tree.zeros_like(PARAMS))
    assert state.info.num_flat == 1


def test_blocks_are_flat_each_for_itself():
    """Of a loss that does not depend on b, exactly evaluated."""
    tx = factorised_qiaso(5, 0.1)
    step = partial(tx.update, None, value_fn=lambda p: jnp.sum(p["w"] ** 2) + 3.0)
    updates, state = jax.jit(step)(tx.init(PARAMS), PARAMS)
    assert updates["b"] == 0
    assert np.all(updates["w"] != 0)
    assert state.info.num_flat == 0
    assert state.info.collapsed


@pytest.mark.parametrize("eta", [0.0, 2.0])
def test_examples_are_flat_each_for_itself(eta):
    """Rounding in examples whose loss is a constant is no part of the estimate."""
    told = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    rounding = 1 + np.random.default_rng(1).choice([0, 1, 2], (3, 2, 4)) * 2.0**-23
    flat = np.array([True, False, True, False])
    losses = jnp.where(flat, np.float32(rounding), told)
    share = jnp.full(4, 0.25)
    amplified = amplify(losses, jnp.asarray(eta), share)
    np.testing.assert_array_equal(amplified.losses.equal, flat)
    np.testing.assert_array_equal(amplified.scaled_losses[:, flat], 0)
    weights = pair_weights(amplified, jnp.asarray(eta), jnp.array(0.1), share)
    np.testing.assert_array_equal(weights[:, flat], 0)
    assert np.all(weights[:, ~flat] != 0)


@pytest.mark.parametrize("scaling", ["zscore", "rank", None])
def test_told_losses_are_compared_as_they_are_told(scaling):
    tx = qiaso(4, 0.1, loss_scaling=scaling)
    state = tx.init(PARAMS)

    def told(losses):
        return qiaso_jax.tell(tx, state, PARAMS, losses)

    near, _ = told([0, 1, 2, 3])
    for losses in (
        1e9 + np.arange(4.0),
        [2**60 + k for k in range(4)],
        np.arange(4) - 2**40,
    ):
        far, after = told(losses)
        chex.assert_trees_all_close(far, near, rtol=1e-5)
        # What is reported is as told.
        assert after.info.best_loss == pytest.approx(float(losses[0]), rel=1e-6)
        assert after.info.expected_loss == pytest.approx(float(losses[1]), rel=1e-6)


@pytest.mark.parametrize("settings", [{}, {"num_measurements": 20}])
def test_told_losses_of_blocks_are_compared_as_they_are_told(settings):
    tx = factorised_qiaso(5, 0.1, **settings)
    state = tx.init(PARAMS)
    number = 20
    losses = np.random.default_rng(0).integers(0, 50, number)
    near, _ = qiaso_jax.tell(tx, state, PARAMS, losses)
    far, _ = qiaso_jax.tell(tx, state, PARAMS, [2**60 + int(x) for x in losses])
    chex.assert_trees_all_close(far, near, rtol=1e-3, atol=1e-6)


def test_the_candidate_with_the_lowest_told_loss_wins():
    losses = np.array([2**33, 2**33 + 2**31, 2**32 + 10, 2**32 + 5])
    for scaling in ("zscore", "rank", None):
        tx = qiaso(4, 0.1, 1e3, loss_scaling=scaling, collapse_every=2)
        _, state = qiaso_jax.tell(tx, tx.init(PARAMS), PARAMS, losses)
        # Of z-scores the two lowest differ by less than float32 tells.
        assert np.argsort(-state.log_amplitudes)[2:].tolist() == [0, 1]
        assert scaling == "zscore" or int(jnp.argmax(state.log_amplitudes)) == 3


def test_losses_are_told_within_jit_too():
    tx = qiaso(4, 0.1)
    state = tx.init(PARAMS)
    expected = qiaso_jax.tell(tx, state, PARAMS, [3.0, 1.0, 2.0, 5.0])
    told = jax.jit(lambda losses: qiaso_jax.tell(tx, state, PARAMS, losses))
    chex.assert_trees_all_close(
        told(jnp.array([3.0, 1.0, 2.0, 5.0])), expected, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("make", [qiaso, factorised_qiaso])
def test_a_displacement_that_is_no_number_is_skipped_and_counted(make):
    tx = make(4, 0.1, collapse=lambda key, log_p: log_p * jnp.nan)
    state = tx.init(PARAMS)
    step = partial(tx.update, None, value_fn=lambda p: jnp.sum(p["w"] ** 2))
    updates, after = jax.jit(step)(state, PARAMS)
    chex.assert_trees_all_equal(updates, optax.tree.zeros_like(PARAMS))
    assert after.info.num_skipped == 1
    assert not after.info.collapsed
    assert np.isfinite(after.info.expected_loss)
