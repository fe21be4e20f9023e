from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qiaso_jax

PARAMS = {"w": jnp.linspace(-1, 1, 60).reshape(10, 6), "b": jnp.zeros(6)}
X = jax.random.normal(jax.random.key(1), (12, 10))


def loss(params, x):
    return jnp.mean(jnp.tanh(x @ params["w"] + params["b"][None]) ** 2)


def by_hand(candidates, losses, eta=1.0):
    """The mean of the groups' displacements, in float64."""
    values = np.float64(losses)
    total = {name: np.zeros(leaf.shape) for name, leaf in PARAMS.items()}
    counted = 0
    for group, row in enumerate(values):
        if not np.isfinite(row).any():
            continue
        counted += 1
        finite = np.isfinite(row)
        scaled = (row - row[finite].mean()) / row[finite].std()
        weights = np.where(finite, np.exp(-eta * scaled), 0)
        weights /= weights.sum()
        for name, leaf in PARAMS.items():
            offsets = np.float64(candidates[name]) - np.float64(leaf)
            own = offsets.reshape(len(values), -1, *leaf.shape)[group]
            total[name] += np.tensordot(weights, own, 1)
    return {name: x / counted for name, x in total.items()}


@pytest.mark.parametrize("directions", ["gaussian", "rademacher", "low_rank"])
@pytest.mark.parametrize("batch_size", [None, 2, 8])
def test_each_group_sees_its_slice_and_their_displacements_are_averaged(
    directions, batch_size
):
    tx = qiaso_jax.qiaso(
        4, 0.1, directions=directions, groups=3, candidate_batch_size=batch_size
    )
    state = tx.init(PARAMS)
    candidates = jax.jit(partial(qiaso_jax.ask, tx))(state, PARAMS)
    grouped = jax.tree.map(lambda c: c.reshape(3, 4, *c.shape[1:]), candidates)
    of_group = jax.vmap(loss, in_axes=(0, None))
    losses = np.array(jax.vmap(of_group)(grouped, X.reshape(3, 4, 10)))
    step = jax.jit(partial(tx.update, None, value_fn=loss))
    updates, after = step(state, PARAMS, x=X)
    expected = by_hand(candidates, losses)
    for name in PARAMS:
        np.testing.assert_allclose(updates[name], expected[name], atol=3e-6)
    assert after.log_amplitudes.shape == (3, 4)
    told, _ = jax.jit(partial(qiaso_jax.tell, tx))(state, PARAMS, losses.ravel())
    for name in PARAMS:
        np.testing.assert_allclose(told[name], expected[name], atol=3e-6)


def test_a_group_without_a_finite_loss_does_not_count():
    tx = qiaso_jax.qiaso(4, 0.1, groups=3)
    state = tx.init(PARAMS)
    losses = np.array([[1.0, 2, 3, 5], [np.nan] * 4, [4, np.inf, 1, 2]])
    updates, after = qiaso_jax.tell(tx, state, PARAMS, losses.ravel())
    expected = by_hand(qiaso_jax.ask(tx, state, PARAMS), losses)
    for name in PARAMS:
        np.testing.assert_allclose(updates[name], expected[name], atol=3e-6)
    assert int(after.info.num_nonfinite) == 5
    assert int(after.info.num_skipped) == 0


def test_stored_candidates_of_groups_keep_their_slices():
    tx = qiaso_jax.qiaso(4, 0.1, groups=3, collapse_every=2, directions="low_rank")
    state = tx.init(PARAMS)
    first = qiaso_jax.ask(tx, state, PARAMS)
    _, state = tx.update(None, state, PARAMS, value_fn=loss, x=X)
    second = qiaso_jax.ask(tx, state, PARAMS)
    np.testing.assert_array_equal(first["w"], second["w"])
    np.testing.assert_allclose(jnp.sum(jnp.exp(state.log_amplitudes), 1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({}, "hand its arrays to update"),
        ({"x": X[:10]}, "groups must divide the number of examples, 10; got groups=3"),
        ({"x": X, "scale": jnp.ones(6)}, r"one length.*Got scale: 6, x: 12"),
    ],
)
def test_what_cannot_be_cut_is_named(kwargs, sentence):
    def value_fn(params, x=X, scale=None):
        return loss(params, x)

    tx = qiaso_jax.qiaso(4, groups=3)
    with pytest.raises(ValueError, match=sentence):
        tx.update(None, tx.init(PARAMS), PARAMS, value_fn=value_fn, **kwargs)


def test_arguments_that_carry_the_batch_are_named_with_their_axes():
    def value_fn(params, x, scale):
        assert scale.shape == (6,)
        return loss(params, x.T) * scale[0]

    tx = qiaso_jax.qiaso(4, groups=3, batch_argnames={"x": 1})
    plain = qiaso_jax.qiaso(4, groups=3)
    state = tx.init(PARAMS)
    updates, _ = tx.update(
        None, state, PARAMS, value_fn=value_fn, x=X.T, scale=jnp.ones(6)
    )
    expected, _ = plain.update(None, state, PARAMS, value_fn=loss, x=X)
    np.testing.assert_allclose(updates["w"], expected["w"], atol=1e-6)
    wrong = qiaso_jax.qiaso(4, groups=3, batch_argnames=("y",))
    with pytest.raises(ValueError, match=r"batch_argnames must be.*x; got 'y'"):
        wrong.update(None, state, PARAMS, value_fn=loss, x=X)


def test_an_axis_that_an_argument_does_not_have_is_named():
    tx = qiaso_jax.qiaso(4, groups=3, batch_argnames={"x": 2})
    with pytest.raises(ValueError, match=r"2 for x; got shape \(12, 10\)"):
        tx.update(None, tx.init(PARAMS), PARAMS, value_fn=loss, x=X)


def test_the_most_probable_candidate_of_each_group_does_not_tunnel():
    tx = qiaso_jax.qiaso(
        4,
        0.1,
        groups=3,
        collapse_every=9,
        tunnelling=qiaso_jax.gaussian_tunnelling(0.5, 1.0, 1.0),
    )
    state = tx.init(PARAMS)
    before = qiaso_jax.ask(tx, state, PARAMS)["b"]
    losses = np.array([[3.0, 1, 2, 4], [1, 2, 3, 4], [9, 8, 7, 6]])
    _, state = qiaso_jax.tell(tx, state, PARAMS, losses.ravel())
    stayed = np.all(qiaso_jax.ask(tx, state, PARAMS)["b"] == before, axis=1)
    np.testing.assert_array_equal(np.flatnonzero(stayed), [1, 4, 11])
    assert int(state.info.num_tunnelled) == 9


def test_all_candidates_at_once_are_cut_by_who_evaluates_them():
    tx = qiaso_jax.qiaso(4, groups=3)
    state = tx.init(PARAMS)

    def together(candidates, x):
        grouped = jax.tree.map(lambda c: c.reshape(3, 4, *c.shape[1:]), candidates)
        of_group = jax.vmap(loss, in_axes=(0, None))
        return jax.vmap(of_group)(grouped, x.reshape(3, 4, 10)).reshape(12)

    updates, _ = tx.update(None, state, PARAMS, candidates_value_fn=together, x=X)
    expected, _ = tx.update(None, state, PARAMS, value_fn=loss, x=X)
    np.testing.assert_allclose(updates["w"], expected["w"], atol=1e-6)


def test_low_rank_candidates_do_not_tunnel():
    with pytest.raises(ValueError, match="directions='low_rank' cannot hold"):
        qiaso_jax.qiaso(
            directions="low_rank", tunnelling=qiaso_jax.gaussian_tunnelling()
        )
    with pytest.raises(ValueError, match="directions must be one of"):
        qiaso_jax.qiaso(directions="sobol")
