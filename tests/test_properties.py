"""Properties that hold whatever comes: ``pytest -k properties`` runs these and others.

Each draws as many examples as its ``settings`` say, by hypothesis, always the same.
"""

import functools
import string

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import qiaso_jax
from qiaso_jax import amplitudes, factorised_qiaso, qiaso
from qiaso_jax.amplitudes import LOSS_SCALINGS, scaled
from qiaso_jax.losses import measured

pytestmark = pytest.mark.slow

drawn = functools.partial(settings, deadline=None, derandomize=True)

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64, jnp.int32, jnp.bool_]
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


def array(shape_and_dtype):
    shape, dtype = shape_and_dtype
    values = np.random.default_rng(len(shape)).normal(size=shape) * 2
    return jnp.asarray(values).astype(dtype)


leaves = st.one_of(
    st.tuples(shapes, st.sampled_from(DTYPES)).map(array),
    st.none(),
    st.sampled_from(["relu", 3, 2.5, True, jax.nn.relu]),
)
pytrees = st.recursive(
    leaves,
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.dictionaries(st.sampled_from(string.ascii_lowercase), children, max_size=3),
        st.tuples(children, children),
    ),
    max_leaves=6,
)
MAKERS = {
    "qiaso": lambda: qiaso(4, 0.1, optimizer=optax.adam(0.1)),
    "later": lambda: qiaso(3, 0.1, collapse="best", collapse_every=2),
    "chunks": lambda: qiaso(5, 0.1, candidate_batch_size=2),
    "exact": lambda: factorised_qiaso(2, 0.1, granularity="leaf"),
    "measured": lambda: factorised_qiaso(3, 0.1, num_measurements=4),
}


def total(params):
    """Of the squares of all numbers there are."""
    numbers = [x for x in jax.tree.leaves(params) if hasattr(x, "dtype")]
    return sum(
        (jnp.sum(jnp.abs(x.astype(jnp.complex64)) ** 2) for x in numbers),
        jnp.zeros(()),
    )


@drawn(max_examples=30)
@given(params=pytrees, name=st.sampled_from(list(MAKERS)))
def test_properties_any_pytree(params, name):
    """Weights move, and all else passes; structure, shapes and dtypes are kept."""
    is_weight = [
        isinstance(x, float) or jnp.issubdtype(getattr(x, "dtype", int), jnp.inexact)
        for x in jax.tree.leaves(params)
    ]
    tx = MAKERS[name]()
    if not any(is_weight):
        with pytest.raises(ValueError, match="nothing to move"):
            tx.update(None, tx.init({}), params, value_fn=total)
        return
    state = tx.init(params)
    for _ in range(2):
        updates, after = tx.update(None, state, params, value_fn=total)
        same = jax.tree.map(lambda a, b: a.shape == b.shape, state, after)
        assert all(jax.tree.leaves(same))
        state = after
    structure = jax.tree.structure(params)
    for moves, param, update in zip(
        is_weight,
        jax.tree.leaves(params),
        structure.flatten_up_to(updates),
        strict=True,
    ):
        if isinstance(param, jax.Array | float | int):
            assert update.shape == jnp.shape(param)
            assert update.dtype == jnp.asarray(param).dtype
            assert np.all(np.isfinite(np.asarray(update, complex)))
            assert moves or not np.any(update)
        else:
            assert update is None
    sizes = [np.size(x) for x in jax.tree.leaves(params)]
    # Each weight is a block, and of none there is no mean.
    has_blocks = name != "measured" or np.dot(is_weight, sizes) > 0
    assert np.isfinite(state.info.expected_loss) == has_blocks
    assert not np.isnan(state.info.expected_loss)


def normal(low, high):
    """Floats of both signs whose magnitude is in a range, and 0."""
    magnitudes = st.floats(low, high, width=32)
    return st.one_of(st.just(0.0), magnitudes, magnitudes.map(lambda x: -x))


@drawn(max_examples=100)
@given(
    losses=st.lists(normal(2.0**-20, 2.0**20), min_size=1, max_size=9),
    exponent=st.integers(-90, 90),
    shift=st.integers(-4, 4),
)
def test_properties_of_every_scaling(losses, exponent, shift):
    """z-scores and ranks see neither shift nor unit; None sees no shift."""
    losses = np.float32(losses)
    unit = np.float32(2.0**exponent)
    of = {
        name: np.asarray(scaled(scale, measured(jnp.asarray(losses), jnp.float32)))
        for name, scale in LOSS_SCALINGS.items()
    }
    for name, scale in LOSS_SCALINGS.items():
        got = scaled(scale, measured(jnp.asarray(losses * unit), jnp.float32))
        expected = of[name] * (unit if name is None else 1)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * max(unit, 1))
    # A shift by multiples of a power of two that loses no digits.
    shifted = np.round(losses * 4) / 4
    of_shifted = measured(jnp.asarray(shifted), jnp.float32)
    far = measured(jnp.asarray(shifted + np.float32(2.0**18 * shift)), jnp.float32)
    assume(bool(far.equal) == bool(of_shifted.equal))
    assume(np.max(np.abs(shifted)) < 2.0**19)
    for scale in LOSS_SCALINGS.values():
        np.testing.assert_allclose(
            scaled(scale, far), scaled(scale, of_shifted), rtol=1e-4, atol=1e-5
        )


@drawn(max_examples=100)
@given(data=st.data(), size=st.integers(1, 8), rate=st.floats(0, 100))
def test_properties_of_permuted_candidates(data, size, rate):
    """What becomes of a candidate does not depend on its place."""
    anything = st.one_of(
        normal(2.0**-10, 2.0**10),
        st.sampled_from([np.inf, -np.inf, np.nan, 1e30, -1e30]),
    )
    losses = np.float32(data.draw(st.lists(anything, min_size=size, max_size=size)))
    order = np.array(data.draw(st.permutations(range(size))))
    rng = np.random.default_rng(size)
    log_p = jnp.log(jnp.asarray(rng.dirichlet(np.ones(size)), jnp.float32))

    def after(losses, log_p):
        compared = measured(jnp.asarray(losses), jnp.float32)
        return [
            amplitudes.reweighted(log_p, compared.value, scaled(scale, compared), rate)[
                1
            ]
            for scale in LOSS_SCALINGS.values()
        ]

    for one, other in zip(
        after(losses, log_p), after(losses[order], log_p[order]), strict=True
    ):
        np.testing.assert_allclose(
            np.exp(one)[order], np.exp(other), rtol=1e-4, atol=1e-6
        )
        assert np.sum(np.exp(np.float64(one))) == pytest.approx(1, abs=1e-5)


def losses_that_occur():
    return st.one_of(
        st.floats(width=32),
        st.sampled_from([np.inf, -np.inf, np.nan, 1e30, -1e30, 3.4e38, -3.4e38, 0.0]),
    )


@functools.cache
def teller(name):
    """A jitted step of six losses, for many examples."""
    tx = {
        "zscore": qiaso(6, 0.1),
        "rank": qiaso(6, 0.1, 50.0, loss_scaling="rank", collapse="sample"),
        "as they are": qiaso(6, 0.1, 7.0, loss_scaling=None, collapse_every=3),
        "Gibbs": qiaso(6, 0.1, kl_strength=None, loss_scaling=None),
        "Adam": qiaso(6, 0.1, optimizer=optax.adam(0.1)),
        "tunnelling": qiaso(
            6,
            0.1,
            collapse="best",
            collapse_every=2,
            tunnelling=qiaso_jax.gaussian_tunnelling(gate="as_printed"),
        ),
        "measured": factorised_qiaso(2, 0.1, num_measurements=6),
        "exact": factorised_qiaso(3, 0.1, granularity="leaf"),
    }[name]
    params = {"a": jnp.ones(3), "b": jnp.float32(2.0)}

    @jax.jit
    def step(params, state, losses):
        updates, state = tx.update(
            None, state, params, candidates_value_fn=lambda _: losses
        )
        return optax.apply_updates(params, updates), state

    return step, params, tx.init(params)


NAMES = ["zscore", "rank", "as they are", "Gibbs", "Adam", "tunnelling", "measured"]


@drawn(max_examples=200)
@given(
    name=st.sampled_from([*NAMES, "exact"]),
    steps=st.lists(
        st.lists(losses_that_occur(), min_size=6, max_size=6), min_size=1, max_size=6
    ),
)
def test_properties_whatever_the_losses_are_parameters_are_numbers(name, steps):
    step, params, state = teller(name)
    for losses in steps:
        params, state = step(params, state, jnp.float32(losses))
        for leaf in jax.tree.leaves((params, state.opt_state, state.candidates)):
            assert np.all(np.isfinite(leaf))
        p = np.exp(np.float64(state.log_amplitudes))
        np.testing.assert_allclose(np.sum(p, axis=-1), 1, atol=1e-5)
        assert float(state.info.entropy) >= 0
        assert float(state.info.kl) >= -1e-5


@pytest.mark.parametrize("size", [1.0, 1e30])
def test_properties_after_a_hundred_thousand_steps(size):
    """Log-amplitudes stay normalised, and the parameters where they may be."""
    tx = qiaso(6, 0.1, loss_scaling="zscore", collapse_every=1000)
    params = jnp.ones(2)

    def step(carry, key):
        params, state = carry
        losses = size * jax.random.normal(key, (6,))
        updates, state = tx.update(
            None, state, params, candidates_value_fn=lambda _: losses
        )
        total = jnp.sum(jnp.exp(state.log_amplitudes))
        return (optax.apply_updates(params, updates), state), jnp.abs(total - 1)

    keys = jax.random.split(jax.random.key(0), 100_000)
    (params, state), errors = jax.jit(
        lambda keys: jax.lax.scan(step, (params, tx.init(params)), keys)
    )(keys)
    assert float(jnp.max(errors)) < 1e-5
    assert state.step == 100_000
    # A hundred displacements of at most three σ each in a direction.
    assert np.all(np.abs(params - 1) < 100 * 0.4)
    assert np.all(np.isfinite(params))
