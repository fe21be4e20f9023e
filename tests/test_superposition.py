import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.superposition import Superposition, displaced, gaussian_like

LIKE = {"a": jnp.zeros((3, 2)), "b": jnp.zeros(()), "n": jnp.zeros(4, jnp.int32)}
LAYOUTS = [
    (k, a, c) for k in (1, 2, 5, 8) for a in (True, False) for c in (True, False)
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_candidate_can_be_drawn_again_without_the_others(layout):
    superposition = Superposition(*layout)
    key = jax.random.key(3)
    together = superposition.offsets(key, LIKE, 0.5)
    for k in range(layout[0]):
        alone = superposition.offset(key, LIKE, 0.5, jnp.asarray(k))
        for name in LIKE:
            np.testing.assert_array_equal(alone[name], together[name][k])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_are_antithetic_and_the_centre_is_kept(layout):
    num_candidates, antithetic, keeps_centre = layout
    superposition = Superposition(*layout)
    offsets = superposition.offsets(jax.random.key(0), LIKE, 1.0)["a"]
    assert offsets.shape == (num_candidates, 3, 2)
    moving = np.asarray(offsets)[int(keeps_centre) :].reshape(-1, 6)
    if keeps_centre:
        assert not offsets[0].any()
    # The number of opposite pairs among the moving candidates, by brute force.
    opposite = sum(
        np.array_equal(x, -y) for i, x in enumerate(moving) for y in moving[:i]
    )
    assert opposite == (len(moving) // 2 if antithetic else 0)
    assert len(np.unique(np.abs(moving), axis=0)) == superposition.num_drawn
    assert np.all(moving != 0)


def test_offsets_have_the_spread_that_was_asked_for():
    like = jnp.zeros(1000)
    offsets = Superposition(64, antithetic=False, keeps_centre=False).offsets(
        jax.random.key(1), like, 0.02
    )
    count = offsets.size
    # 5 standard errors: fails for one key in about 10^6.
    assert abs(float(offsets.mean())) < 5 * 0.02 / count**0.5
    assert abs(float(offsets.std()) / 0.02 - 1) < 5 / (2 * count) ** 0.5
    correlations = np.corrcoef(np.asarray(offsets))[np.triu_indices(64, 1)]
    assert np.abs(correlations).max() < 6 / 1000**0.5


@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.complex64]
)
def test_offsets_have_the_dtype_of_the_weights(dtype):
    offsets = Superposition(4, True, True).offsets(
        jax.random.key(0), jnp.zeros(3, dtype), 0.1
    )
    assert offsets.dtype == dtype


def test_complex_weights_spread_over_both_parts():
    noise = gaussian_like(jax.random.key(0), jnp.zeros(20_000, jnp.complex64))
    # 6 standard errors of a mean of |z|², whose standard deviation is 1.
    assert abs(float(jnp.mean(jnp.abs(noise) ** 2)) - 1) < 6 / 20_000**0.5
    assert float(jnp.mean(noise.imag**2)) == pytest.approx(0.5, abs=0.03)


def test_integers_stay_where_they_are():
    centre = {"n": jnp.arange(3), "flag": jnp.array([True, False]), "x": jnp.ones(2)}
    offset = Superposition(2, False, False).offset(
        jax.random.key(0), centre, 1.0, jnp.asarray(1)
    )
    moved = displaced(centre, offset)
    np.testing.assert_array_equal(moved["n"], centre["n"])
    np.testing.assert_array_equal(moved["flag"], centre["flag"])
    assert (moved["x"] != centre["x"]).all()
    assert {k: v.dtype for k, v in moved.items()} == {
        k: v.dtype for k, v in centre.items()
    }
