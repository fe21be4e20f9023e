"""What carries the batch, and which of its examples are drawn."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax._arguments import accepted_arguments, checked_argnames
from qiaso_jax.node_space.examples import (
    bind_model,
    telling_examples,
)
from qiaso_jax.program.axes import ExampleAxis

B = 6
W = np.ones((4, 3), np.float32)
X = np.random.default_rng(0).normal(size=(B, 4)).astype(np.float32)
Y = np.arange(B) % 3


def squares(params, x):
    return jnp.sum((x @ params) ** 2, axis=1)


def bound(value_fn, names=None, **kwargs):
    taken = accepted_arguments("value_fn", value_fn, kwargs)
    return bind_model(value_fn, W, taken, names)


def silently(value_fn, names=None, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return bound(value_fn, names, **kwargs)


def test_what_has_the_examples_along_its_first_axis_is_the_batch():
    def value_fn(params, x, y, table):
        return squares(params, x["a"]) + table[y] + x["b"]

    model = silently(
        value_fn, x={"a": X, "b": X[:, 0]}, y=Y, table=np.ones(3), other=np.ones(B)
    )
    assert model.size == B
    assert model.names == ["x", "x", "y"]
    assert model.axes == [0, 0, 0]
    assert model.statuses == (ExampleAxis(0, 1),) * 3
    assert [x.shape for x in model.resized(2)] == [(2, 4), (2,), (2,)]
    np.testing.assert_allclose(
        model.losses(model.leaves, model.batch),
        squares(W, X) + 1 + X[:, 0],
        1e-5,
    )
    half = model.losses(model.leaves, [x[:3] for x in model.batch])
    np.testing.assert_allclose(half, squares(W, X[:3]) + 1 + X[:3, 0], 1e-5)


def test_paths_are_those_of_the_parameters():
    params = {"layer": [{"w": W}, jnp.ones(3)]}
    model = bind_model(
        lambda p, x: squares(p["layer"][0]["w"], x) * p["layer"][1][0], params,
        {"x": X}, None,
    )  # fmt: skip
    assert model.paths == ["layer/0/w", "layer/1"]
    assert [leaf.shape for leaf in model.leaves] == [(4, 3), (3,)]


def test_numbers_and_arrays_of_other_lengths_are_no_part_of_the_batch():
    def value_fn(params, x, scale, flag, table, mixed):
        losses = squares(params, x) * scale + table.sum() + mixed["b"].sum()
        return losses if flag else -losses

    model = silently(
        value_fn,
        x=X,
        scale=2.0,
        flag=True,
        table=np.ones(7),
        mixed={"a": np.ones(B), "b": np.ones(2)},
    )
    assert model.names == ["x"]


def test_a_table_that_traces_only_as_what_it_is_is_told_apart():
    # Ten classes, ten examples: only x can be of any other number of them.
    def value_fn(params, x, y, table):
        return squares(params, x) + table @ jnp.ones(B)

    model = silently(value_fn, x=X, y=Y, table=np.ones(B))
    assert "table" not in model.names
    assert "x" in model.names


def test_what_can_be_both_is_warned_of_by_name():
    def value_fn(params, x, y, class_weights):
        return squares(params, x) * class_weights[y]

    y, weights = jnp.arange(B), jnp.ones(B)
    with pytest.warns(UserWarning, match="'class_weights'.*batch_argnames"):
        model = bound(value_fn, x=X, y=y, class_weights=weights)
    assert "class_weights" in model.names
    model = silently(value_fn, ("x", "y"), x=X, y=y, class_weights=weights)
    assert model.names == ["x", "y"]


def test_arrays_of_numpy_are_warned_of_as_well():
    # NumPy does not take indices that are traced, which is no sign of a batch.
    def value_fn(params, x, y, class_weights):
        return squares(params, x) * class_weights[y]

    y, weights = np.arange(B), np.ones(B, np.float32)
    with pytest.warns(UserWarning, match="'class_weights'.*batch_argnames"):
        bound(value_fn, x=X, y=y, class_weights=weights)
    model = silently(value_fn, ("x", "y"), x=X, y=y, class_weights=weights)
    found = model.losses(model.leaves, list(map(jnp.asarray, model.batch)))
    np.testing.assert_allclose(found, squares(W, X), 1e-5)


def test_what_is_not_used_is_not_warned_of():
    def value_fn(params, x, unused):
        return squares(params, x)

    model = silently(value_fn, x=X, unused=np.ones(B))
    assert "x" in model.names


def test_all_that_is_the_batch_beyond_doubt_is_not_warned_of():
    def value_fn(params, x, y):
        return squares(params, x) - y

    assert silently(value_fn, x=X, y=Y).names == ["x", "y"]


def test_the_axis_of_the_examples_can_be_named():
    series = np.random.default_rng(1).normal(size=(5, B, 4)).astype(np.float32)

    def value_fn(params, x, y):
        return jax.vmap(squares, (None, 0))(params, x).sum(0) + y

    model = silently(value_fn, {"x": 1, "y": 0}, x=series, y=Y)
    assert model.names == ["x", "y"]
    assert model.axes == [1, 0]
    assert model.statuses == (ExampleAxis(1, 1), ExampleAxis(0, 1))
    assert [x.shape for x in model.resized(2)] == [(5, 2, 4), (2,)]
    found = model.losses(model.leaves, [series[:, :2], Y[:2]])
    np.testing.assert_allclose(found, value_fn(W, series, Y)[:2], 1e-5)
    # As many steps as examples: what the axis is is a matter of the name.
    square = np.random.default_rng(2).normal(size=(B, B, 4)).astype(np.float32)
    assert silently(value_fn, {"x": 1, "y": 0}, x=square, y=Y).axes == [1, 0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("z",), r"batch_argnames names \['z'\].*it was given \['x', 'y'\]"),
        ({"z": 1}, r"batch_argnames names \['z'\]"),
        ({"x": 1}, "axis 1 of 'x' counts the 6 examples, but none of its arrays"),
        ({"x": 5}, "axis 5 of 'x' counts the 6 examples, but none of its arrays"),
        ((), "none of the arrays"),
    ],
)
def test_names_that_cannot_be(names, message):
    with pytest.raises(ValueError, match=message):
        bound(lambda params, x, y: squares(params, x) + y, names, x=X, y=Y)


def test_no_array_of_the_names_has_the_examples():
    with pytest.raises(ValueError, match=r'as in batch_argnames=\{"x": 1\}'):
        bound(lambda params, x: squares(params, x.swapaxes(0, 1)), ("x",), x=X.T.copy())


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("x", TypeError, r"such as \('x',\); got the string 'x'"),
        ({"x": -1}, ValueError, "an int of at least 0; got -1 for 'x'"),
        ({"x": 1.0}, ValueError, "got 1.0 for 'x'"),
        ({"x": True}, ValueError, "got True for 'x'"),
    ],
)
def test_settings_that_are_no_names(names, error, message):
    with pytest.raises(error, match=message):
        checked_argnames(names)


@pytest.mark.parametrize("names", [None, ("x",), ["x", "y"], {"x": 1}, {}])
def test_settings_that_are(names):
    assert checked_argnames(names) == names


@pytest.mark.parametrize(
    ("value_fn", "error", "message"),
    [
        (lambda p, x: squares(p, x).mean(), ValueError, r"got shape \(\). Do not aver"),
        (lambda p, x: x @ p, ValueError, r"got shape \(6, 3\)\."),
        (lambda p, x: (squares(p, x), 1), TypeError, "got a tuple"),
        (lambda p, x: squares(p, x) > 0, TypeError, "real floating dtype; got bool"),
        (lambda p, x: squares(p, x) + 0j, TypeError, "got complex64"),
        (lambda p: squares(p, X), ValueError, "no keyword argument carries the 6"),
    ],
)
def test_losses_that_are_none(value_fn, error, message):
    with pytest.raises(error, match=message):
        bound(value_fn, x=X)


def test_one_example_alone_is_a_batch():
    model = silently(lambda p, x, y: squares(p, x) + y, x=X[:1], y=Y[:1])
    assert model.size == 1
    assert model.names == ["x", "y"]


def test_draws_are_systematic():
    # Of example n there are ⌊b q_n⌋ draws, or one more: no chance is in that.
    losses = jnp.array([0.0, 1.0, 2.0, 5.0])
    q = np.asarray(0.9 * losses / 8 + 0.1 / 4)
    rows, share = jax.vmap(lambda k: telling_examples(k, losses, 10))(
        jax.random.split(jax.random.key(0), 200)
    )
    counts = (np.asarray(rows)[:, :, None] == np.arange(4)).sum(1)
    # Up to the rounding of sums in single precision.
    assert np.all(counts >= np.floor(10 * q - 1e-4))
    assert np.all(counts <= np.floor(10 * q + 1e-4) + 1)
    np.testing.assert_allclose(share, 1 / (10 * 4 * q[rows]), 1e-5)


@pytest.mark.slow
def test_losses_that_are_not_finite_are_drawn_the_least():
    losses = jnp.array([jnp.nan, jnp.inf, 3.0, 1.0])
    rows, share = jax.vmap(lambda k: telling_examples(k, losses, 2))(
        jax.random.split(jax.random.key(0), 400)
    )
    assert np.all(np.isfinite(share))
    # Two draws of 2.5 % each; the bound is exceeded once in a million seeds.
    assert np.mean(rows < 2) < 0.1
    nothing = jnp.full(4, jnp.nan)
    rows, share = telling_examples(jax.random.key(0), nothing, 4)
    np.testing.assert_array_equal(rows, np.arange(4))
    np.testing.assert_allclose(share, 1 / 4, 1e-6)
