import jax
import jax.numpy as jnp
import pytest

import qiaso_jax


def value_fn(params, x):
    hidden = jnp.tanh(x @ params["in"] + params["bias"][None])
    penalty = jnp.sum(params["in"] ** 2) + jnp.max(params["out"])
    return jnp.mean(hidden @ params["out"]) + penalty


PARAMS = {
    "in": jnp.ones((20, 10)),
    "bias": jnp.zeros(10),
    "out": jnp.ones((10, 3)),
    "phase": jnp.ones((20, 10), jnp.complex64),
    "count": jnp.arange(3),
}
X = jnp.ones((2, 20))


def test_every_use_of_a_leaf_is_listed_with_its_reason():
    sites = qiaso_jax.low_rank_sites(value_fn, PARAMS, x=X)
    found = {(s.path, s.operation.split(" ")[0]): s for s in sites}
    assert found["in", "dot_general"].factored
    assert (found["in", "dot_general"].rows, found["in", "reduce_sum"].columns) == (
        20,
        10,
    )
    assert not found["out", "reduce_max"].factored
    assert found["out", "reduce_max"].reason
    assert "test_low_rank_listing.py:" in found["out", "reduce_max"].operation
    assert found["bias", ""].reason == "it is no matrix"
    assert found["phase", ""].reason == "it is complex"
    assert not any(s.path == "count" for s in sites)


def test_a_higher_rank_leaves_fewer_leaves_factored_and_a_mask_leaves_some_out():
    sites = qiaso_jax.low_rank_sites(value_fn, PARAMS, rank=5, x=X)
    (out,) = [s for s in sites if s.path == "out"]
    assert (out.operation, out.rows, out.columns) == ("", 0, 0)
    assert out.reason == "its factors would be no fewer numbers"
    mask = {name: name == "in" for name in PARAMS}
    masked = qiaso_jax.low_rank_sites(value_fn, PARAMS, leaf_mask=mask, x=X)
    assert {s.path for s in masked} == {"in"}


def test_uses_in_loops_and_branches_are_listed():
    def looped(params, x):
        def step(h, w):
            return jax.lax.cond(
                h[0, 0] > 0, lambda: h @ w, lambda: h - w[0][None]
            ), None

        return jnp.sum(jax.lax.scan(step, x, params)[0])

    sites = qiaso_jax.low_rank_sites(looped, jnp.ones((3, 20, 20)), x=X)
    assert any(s.operation.startswith("dot_general") and s.factored for s in sites)
    assert all(s.rows * s.columns == 1200 for s in sites)


def test_a_loss_that_is_no_scalar_is_named():
    with pytest.raises(ValueError, match="value_fn must return a scalar"):
        qiaso_jax.low_rank_sites(lambda p: p["in"][0], PARAMS)
