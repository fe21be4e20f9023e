from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import PARAMS, REGISTRY, X, Y, one_of_each

import qiaso_jax


@pytest.mark.parametrize("num_candidates", [500, 2000])
def test_signal_to_noise_is_that_of_a_linear_loss(num_candidates):
    """P pairs of Gaussian directions in D dimensions: P / (D + 1), for small η.

    ĝ is the mean of z zᵀg over the pairs, whose variance is (D + 1)|g|² / P. Both
    squares are sums of about D terms, so that the standard deviation is a tenth of the
    ratio; four of them.
    """
    size = 200
    slope = jnp.asarray(np.random.default_rng(0).normal(size=size), jnp.float32)
    tx = qiaso_jax.qiaso(num_candidates, 1.0, 1e-4, loss_scaling=None)
    params = {"heard": jnp.zeros(size), "unheard": jnp.zeros(size)}
    estimate = partial(
        qiaso_jax.signal_to_noise, tx, value_fn=lambda p: slope @ p["heard"]
    )
    ratio = jax.jit(estimate)(tx.init(params), params)
    expected = num_candidates / 2 / (size + 1)
    assert float(ratio["heard"]) == pytest.approx(expected, rel=0.4)
    # Of D = 200 independent numbers, 0 to within 1 / √D; four of these.
    assert abs(float(ratio["unheard"])) < 4 / size**0.5


@one_of_each
def test_it_leaves_the_state_and_costs_two_steps(name):
    entry, evaluated = REGISTRY[name], []
    tx = entry.make()
    state = tx.init(PARAMS)

    def value_fn(params, x, y):
        jax.debug.callback(lambda: evaluated.append(1))
        return entry.value_fn(params, x, y)

    call = {"value_fn": value_fn, "x": X, "y": Y}
    ratio = jax.jit(lambda s: qiaso_jax.signal_to_noise(tx, s, PARAMS, **call))(state)
    jax.effects_barrier()
    twice = len(evaluated)
    evaluated.clear()
    jax.jit(lambda s: tx.update(None, s, PARAMS, **call))(state)
    jax.effects_barrier()
    assert twice == 2 * len(evaluated)
    assert {name: x.shape for name, x in ratio.items()} == {"w": (), "b": ()}


def test_two_equal_estimates_have_no_noise_and_none_has_no_signal():
    def ratio(value_fn):
        tx = qiaso_jax.qiaso(
            2,
            0.1,
            loss_scaling=lambda x: jnp.sign(x - jnp.mean(x)),
            directions="gaussian",
        )
        params = jnp.ones(())
        estimate = partial(qiaso_jax.signal_to_noise, tx, value_fn=value_fn)
        return jax.jit(estimate)(tx.init(params), params)

    assert ratio(lambda x: 0 * x + 1.0) == 0
    assert np.isfinite(ratio(lambda x: x))


def test_wrappers_that_branch_are_named():
    tx = optax.apply_if_finite(qiaso_jax.qiaso(4), 3)
    with pytest.raises(ValueError, match=r"cannot pass through optax.apply_if_finite"):
        qiaso_jax.signal_to_noise(
            tx, tx.init(PARAMS), PARAMS, value_fn=lambda p: jnp.sum(p["w"])
        )
