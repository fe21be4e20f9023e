import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import qiaso_jax
from qiaso_jax import QIASOInfo


def test_reports_can_be_found_in_wrapped_states():
    tx = optax.chain(optax.clip(1.0), optax.apply_if_finite(qiaso_jax.qiaso(6, 0.1), 3))
    params = jnp.ones(3)
    state = tx.init(params)
    assert optax.tree.get(state, "expected_loss") == jnp.inf
    _, state = tx.update(params, state, params, value_fn=lambda x: x @ x)
    for name in QIASOInfo._fields:
        assert jnp.shape(optax.tree.get(state, name)) == ()
    assert optax.tree.get(state, "expected_loss") > 0


@pytest.mark.parametrize("collapse_every", [1, 2])
def test_the_state_is_made_of_arrays_and_keeps_its_shape(collapse_every):
    tx = qiaso_jax.qiaso(6, 0.1, collapse_every=collapse_every)
    params = {"x": jnp.ones(3), "y": jnp.ones((2, 2), jnp.bfloat16)}
    state = tx.init(params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert state.key.dtype == jnp.uint32
    after = jax.eval_shape(
        lambda s: tx.update(None, s, params, value_fn=lambda p: p["x"] @ p["x"])[1],
        state,
    )
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(after)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(state)
    ]


def test_candidates_are_stored_where_they_live_on():
    params = jnp.ones((3, 2))
    assert qiaso_jax.qiaso(6).init(params).candidates == ()
    for settings in (
        {"collapse_every": 2},
        {"tunnelling": qiaso_jax.gaussian_tunnelling()},
    ):
        assert qiaso_jax.qiaso(6, **settings).init(params).candidates.shape == (6, 3, 2)


def test_a_new_superposition_is_uniform():
    info = qiaso_jax.qiaso(6).init(jnp.ones(2)).info
    assert info.entropy == pytest.approx(np.log(6))
    assert info.effective_candidates == 6
