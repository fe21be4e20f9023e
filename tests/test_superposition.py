import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.directions import LowRank
from qiaso_jax.factors import Factors, is_factors
from qiaso_jax.superposition import Listed, Superposition, arrays, stored

LIKE = {"a": jnp.zeros((3, 2)), "b": jnp.zeros(()), "n": None}
LAYOUTS = [
    (k, a, c) for k in (1, 2, 5, 8) for a in (True, False) for c in (True, False)
]


SPREAD = {"a": 0.5, "b": 0.5, "n": None}
KINDS = ["gaussian", "rademacher", LowRank(1, "rademacher"), LowRank(2, "gaussian")]
LARGE = {"w": jnp.zeros((9, 11)), "b": jnp.zeros(3), "n": None}
LARGE_SPREAD = {"w": 0.5, "b": 0.25, "n": None}


def whole(offset):
    """Arrays in float64."""
    return jax.tree.map(
        lambda d: d.dense(jnp.float64) if is_factors(d) else d.astype(jnp.float64),
        offset,
        is_leaf=is_factors,
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_candidate_can_be_drawn_again_without_the_others(layout):
    superposition = Superposition(*layout)
    key = jax.random.key(3)
    together = superposition.offsets(key, LIKE, SPREAD)
    for batch_size in (1, 2, 3, 8):
        candidates = superposition.candidates(key, LIKE, SPREAD, batch_size)
        apart = candidates.map(lambda offset: offset)
        for name in ("a", "b"):
            np.testing.assert_array_equal(apart[name], together[name])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 2, 7, 70])
def test_what_is_read_out_is_the_weighted_sum_of_all_offsets(number, kind):
    weights = np.random.default_rng(0).normal(size=number)
    with jax.enable_x64(True):
        like = {"w": jnp.zeros((9, 11)), "b": jnp.zeros(3), "n": None}
        for antithetic, keeps_centre in ((True, False), (True, True), (False, True)):
            layout = Superposition(number, antithetic, keeps_centre, kind)
            key = jax.random.key(1)
            offsets = jax.vmap(whole)(layout.offsets(key, like, LARGE_SPREAD))
            for batch_size in (None, 2):
                candidates = layout.candidates(key, like, LARGE_SPREAD, batch_size)
                total = jax.jit(candidates.weighted_offset)(weights, like)
                for name in ("w", "b"):
                    expected = np.tensordot(weights, np.asarray(offsets[name]), 1)
                    np.testing.assert_allclose(total[name], expected, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_are_antithetic_and_the_centre_is_kept(layout):
    num_candidates, antithetic, keeps_centre = layout
    superposition = Superposition(*layout)
    offsets = superposition.offsets(jax.random.key(0), LIKE, SPREAD)["a"]
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


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 10])
def test_the_weighted_offset_is_a_weighted_sum(batch_size):
    weights = np.random.default_rng(0).dirichlet(np.ones(7)).astype(np.float32)
    offsets = Superposition(7, True, False).offsets(jax.random.key(0), LIKE, SPREAD)
    candidates = stored(offsets, 7, batch_size)
    total = candidates.weighted_offset(jnp.asarray(weights), LIKE)
    expected = np.einsum("k,kij->ij", np.float64(weights), np.float64(offsets["a"]))
    np.testing.assert_allclose(total["a"], expected, atol=1e-6)
    assert total["n"] is None


def test_half_precision_offsets_are_summed_in_the_precision_of_the_weights():
    # 0.001 added 1,000 times to bfloat16 would stop growing at 0.25.
    candidates = stored(jnp.full((1000, 1), 1.0, jnp.bfloat16), 1000, 10)
    total = candidates.weighted_offset(
        jnp.full((1000,), 1e-3), jnp.zeros(1, jnp.bfloat16)
    )
    assert total.dtype == jnp.bfloat16
    assert float(total[0]) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize(("batch_size", "are_known"), [(None, True), (2, False)])
def test_offsets_are_known_or_drawn_when_they_are_needed(batch_size, are_known):
    layout, key = Superposition(5, True, True), jax.random.key(0)
    centre = {"a": jnp.ones((3, 2)), "b": jnp.float32(2.0), "n": None}
    candidates = layout.candidates(key, centre, SPREAD, batch_size)
    assert (candidates.known is not None) == are_known
    assert candidates.number == 5
    offsets = layout.offsets(key, centre, SPREAD)
    found = arrays(candidates, centre)
    for name in ("a", "b"):
        np.testing.assert_array_equal(
            found[name], np.asarray(centre[name]) + np.asarray(offsets[name])
        )


def test_partners_of_a_pair_are_exactly_opposite_and_factors_are_known_by_few_numbers():
    layout = Superposition(6, True, False, LowRank(1, "rademacher"))
    candidates = layout.candidates(jax.random.key(0), LARGE, LARGE_SPREAD, 2)
    assert candidates.known is not None
    assert sum(x.size for x in candidates.known) < 102
    offsets = candidates.map(lambda offset: offset)
    assert isinstance(offsets["w"], Factors)
    assert (offsets["w"].rows.shape, offsets["w"].columns.shape) == (
        (6, 1, 9),
        (6, 1, 11),
    )
    dense = np.asarray(jax.vmap(lambda one: one.dense(jnp.float32))(offsets["w"]))
    np.testing.assert_array_equal(dense[:3], -dense[3:])
    np.testing.assert_array_equal(np.abs(dense), 0.5)


def test_only_so_many_offsets_exist_at_a_time():
    candidates = Listed(jnp.arange(7), jnp.float32, 3)
    weights = jnp.linspace(0, 1, 7)
    total = candidates.weighted_offset(weights, jnp.float32(0))
    assert float(total) == pytest.approx(float(weights @ np.arange(7.0)))
    jaxpr = jax.make_jaxpr(candidates.weighted_offset)(weights, jnp.float32(0)).jaxpr
    (scan,) = (e for e in jaxpr.eqns if e.primitive.name == "scan")
    assert scan.params["length"] == 3
