import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import qiaso_jax
from qiaso_jax import ask, qiaso, tell

PARAMS = {"x": jnp.array([1.0, -2.0]), "n": jnp.array([3])}


def loss(params):
    return jnp.sum(params["x"] ** 2) + params["n"][0]


TRANSFORMS = {
    "plain": qiaso(5, 0.2),
    "stored": qiaso(
        5,
        0.2,
        collapse="sample",
        collapse_every=2,
        tunnelling=qiaso_jax.gaussian_tunnelling(),
        optimizer=optax.adam(0.1),
    ),
    "in chunks": qiaso(5, 0.2, candidate_batch_size=2),
    "in a chain": optax.chain(optax.scale(0.5), qiaso(5, 0.2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("tx", TRANSFORMS.values(), ids=TRANSFORMS)
def test_tell_equals_update(tx):
    state = told_state = tx.init(PARAMS)
    given = {"x": jnp.array([0.1, 0.2]), "n": jnp.array([0])}
    for _ in range(2):
        expected, state = jax.jit(lambda s: tx.update(given, s, PARAMS, value_fn=loss))(
            state
        )
        candidates = ask(tx, told_state, PARAMS, updates=given)
        assert candidates["x"].shape == (5, 2)
        np.testing.assert_array_equal(candidates["n"], np.full((5, 1), 3))
        losses = jax.vmap(loss)(candidates)
        told, told_state = tell(tx, told_state, PARAMS, losses, updates=given)
        chex.assert_trees_all_close((told, told_state), (expected, state), rtol=1e-5)


def test_losses_may_arrive_in_any_order_and_be_missing():
    tx = qiaso(5, 0.2)
    state = tx.init(PARAMS)
    losses = np.array([3.0, np.nan, 1.0, 2.0, np.nan])
    expected = tell(tx, state, PARAMS, losses)
    assert expected[1].info.num_nonfinite == 2
    shuffled = tell(tx, state, PARAMS, [2.0, 3.0, 1.0], indices=[3, 0, 2])
    chex.assert_trees_all_equal(shuffled, expected)
    nothing = tell(tx, state, PARAMS, [], indices=[])
    chex.assert_trees_all_equal(nothing[0], optax.tree.zeros_like(PARAMS))
    assert nothing[1].info.num_skipped == 1


def test_integer_losses_are_taken():
    tx = qiaso(5, 0.2)
    state = tx.init(PARAMS)
    chex.assert_trees_all_equal(
        tell(tx, state, PARAMS, [4, 2, 0, 1, 3]),
        tell(tx, state, PARAMS, [4.0, 2.0, 0.0, 1.0, 3.0]),
    )


@pytest.mark.parametrize(
    ("losses", "indices", "error", "sentence"),
    [
        ([1.0, 2.0], None, ValueError, r"losses must have shape \(5,\).*got \(2,\)"),
        (np.ones((5, 1)), None, ValueError, r"losses must have one .* shape \(1,\)"),
        (np.ones(5) + 1j, None, TypeError, "losses must be a sequence of real numbers"),
        ([1.0, 2.0], [0], ValueError, "lists of the same length"),
        ([1.0, 2.0], [0, 5], ValueError, r"from 0 to 4, got \[0, 5\]"),
        ([1.0, 2.0], [-1, 0], ValueError, "from 0 to 4"),
        ([1.0, 2.0], [1, 1], ValueError, "indices must differ"),
        ([1.0, 2.0], [0.0, 1.0], TypeError, "indices must be integers"),
    ],
)
def test_what_cannot_be_told_is_named(losses, indices, error, sentence):
    tx = qiaso(5, 0.2)
    with pytest.raises(error, match=sentence):
        tell(tx, tx.init(PARAMS), PARAMS, losses, indices=indices)
