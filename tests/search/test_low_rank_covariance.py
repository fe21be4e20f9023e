import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import minimize
from qiaso_jax.search import covariance
from qiaso_jax.search.low_rank import LOW_RANK, MOST, Factors, LowRank, rank

SIZE, NUMBER = 40, 12


def random_state(size=SIZE):
    """A superposition that has come some way, in float64, and I + V Λ Vᵀ."""
    rng = np.random.default_rng(3)
    number = rank(size)
    basis, _ = np.linalg.qr(rng.normal(size=(size, number + 1)))
    directions = basis[:, 1:]
    values = np.concatenate([[300.0, -0.9], rng.uniform(-0.5, 5, number - 2)])
    scale = rng.uniform(0.5, 2, size)
    within = (directions * values) @ directions.T
    state = covariance.begun(
        LOW_RANK, jnp.asarray(rng.normal(size=size)), jnp.array(0.7)
    )
    state = state._replace(
        covariance=LowRank(
            *map(jnp.asarray, (2 * np.log(scale), basis, within @ basis))
        ),
        root=Factors(*map(jnp.asarray, (scale, directions, values))),
        path=jnp.asarray(rng.normal(size=size)),
        path_sigma=jnp.asarray(rng.normal(size=size)),
    )
    return state, np.eye(size) + within


def matrix_of(state):
    """C of which candidates are drawn, by their linear map."""
    root = jax.vmap(LOW_RANK.spread, (None, 1), 1)(
        state.root, jnp.eye(state.mean.size, dtype=state.mean.dtype)
    )
    root = np.asarray(root)
    return root @ root.T


def test_candidates_have_the_covariance_of_the_factors():
    with jax.enable_x64(True):
        state, inner = random_state()
        scale = np.asarray(state.root.scale)
        found = matrix_of(state)
        variances = LOW_RANK.variances(state)
        z = jnp.asarray(np.random.default_rng(0).normal(size=SIZE))
        back = LOW_RANK.whitened(state.root, LOW_RANK.spread(state.root, z))
    expected = scale[:, None] * inner * scale
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(variances, np.diag(expected), rtol=1e-10)
    np.testing.assert_allclose(back, z, rtol=1e-10)


def test_one_step_by_numpy():
    with jax.enable_x64(True):
        before, inner = random_state()
        rng = np.random.default_rng(4)
        z, p = rng.normal(size=(NUMBER, SIZE)), rng.dirichlet(np.ones(NUMBER))
        w = p - 1 / NUMBER
        p, w = jnp.asarray(p), jnp.asarray(w)
        found = covariance.moments(LOW_RANK, before, jnp.asarray(z), p, w)
        rate = covariance.rates(LOW_RANK, SIZE, 1 / jnp.sum(p**2))
        along = LOW_RANK.product(before, jnp.ones(1), before.path[None])
        kept = 1 - rate.rank_one
        after = LOW_RANK.moved(before, rate, kept, along, found.second)
        before, after, rate, kept, w = jax.device_get((before, after, rate, kept, w))

    scale, basis = before.root.scale, before.covariance.basis
    values, vectors = np.linalg.eigh(inner)
    root = vectors * np.sqrt(values) @ vectors.T
    reach = SIZE / np.sum(z**2, axis=1)
    w = rate.rank_mu * np.where(w < 0, w * reach, w)
    steps = list(zip(w, z @ root, strict=True))
    steps.append((rate.rank_one, before.path / scale))
    moved = kept * inner + sum(weight * np.outer(t, t) for weight, t in steps)
    np.testing.assert_allclose(
        after.image, (moved - np.eye(SIZE)) @ basis, rtol=1e-9, atol=1e-9
    )
    # The score of log D² is half of t ∘ C⁻¹ t − 1, and its Fisher information a quarter
    # of the variance of that.
    inverse = np.linalg.inv(inner)
    scores = sum(weight * (t * (inverse @ t) - 1) for weight, t in steps)
    information = 1 + np.diag(inner) * np.diag(inverse)
    quicker = min((SIZE + 2) / 3, MOST / (rate.rank_one + rate.rank_mu))
    change = quicker * 2 * scores / information
    np.testing.assert_allclose(
        after.logs, before.covariance.logs + change, rtol=1e-9, atol=1e-9
    )


def test_what_is_renewed_has_volume_one_and_its_basis_holds_the_path():
    with jax.enable_x64(True):
        state, inner = random_state()
        learnt, root, scale = LOW_RANK.renewed(state)
        found = matrix_of(state._replace(root=root))
        state, learnt, root, scale = jax.device_get((state, learnt, root, scale))
    d = state.root.scale
    expected = d[:, None] * inner * d
    np.testing.assert_allclose(scale**2 * found, expected, rtol=1e-9, atol=1e-9)
    assert np.linalg.slogdet(found)[1] == pytest.approx(0, abs=1e-9)
    basis, path = learnt.basis, state.path / d
    np.testing.assert_allclose(basis.T @ basis, np.eye(rank(SIZE) + 1), atol=1e-12)
    np.testing.assert_allclose(basis @ (basis.T @ path), path, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        learnt.image, (inner - np.eye(SIZE)) @ basis, rtol=1e-9, atol=1e-9
    )


def test_images_lead_to_the_directions_that_differ_most():
    rng = np.random.default_rng(5)
    number = rank(SIZE)
    vectors, _ = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))
    values = np.full(SIZE, 0.01)
    values[:number] = np.where(np.arange(number) % 3, 9.0, -0.95)
    values[:number] *= np.linspace(1, 0.9, number)
    matrix = vectors * values @ vectors.T
    with jax.enable_x64(True):
        state = covariance.begun(LOW_RANK, jnp.zeros(SIZE), jnp.array(1.0))
        for _ in range(30):
            learnt = state.covariance
            image = jnp.asarray(matrix) @ learnt.basis
            state = state._replace(
                covariance=learnt._replace(image=image, logs=jnp.zeros(SIZE)),
                path=jnp.asarray(rng.normal(size=SIZE)),
            )
            learnt, root, _ = LOW_RANK.renewed(state)
            state = state._replace(covariance=learnt, root=root)
    order = np.argsort(root.values)
    found = np.asarray(root.values)[order]
    np.testing.assert_allclose(found, np.sort(values[:number]), rtol=1e-3)
    within = np.asarray(root.directions).T @ vectors[:, :number]
    np.testing.assert_allclose(within @ within.T, np.eye(number), atol=1e-2)


def cigar(x):
    """One long axis, in no direction of the coordinates."""
    along = jnp.mean(x)
    return along**2 * x.size + 1e4 * jnp.sum((x - along) ** 2)


@pytest.mark.nightly
def test_one_long_direction_is_found():
    def search(kind):
        return minimize(
            cigar, jnp.ones(20), sigma=1.0, covariance=kind, max_evaluations=20_000
        ).fun

    with jax.enable_x64(True):
        assert search("low_rank") < 1e-8 < 1e-2 < search("diagonal")


@pytest.mark.parametrize("size", [1, 5])
def test_few_coordinates(size):
    result = minimize(
        lambda x: jnp.sum((x - 1) ** 2),
        jnp.zeros(size),
        sigma=1.0,
        covariance="low_rank",
        max_evaluations=1_500,
    )
    np.testing.assert_allclose(result.x, np.ones(size), atol=1e-3)


def test_no_buffer_has_a_row_and_a_column_for_each_coordinate():
    size = 3_000

    def search(x0):
        return minimize(
            lambda x: jnp.sum(x**2),
            x0,
            sigma=1.0,
            covariance="low_rank",
            max_evaluations=2 * 28,
        ).fun

    compiled = jax.jit(search).lower(jnp.zeros(size)).compile()
    memory = compiled.memory_analysis()
    numbers = memory.temp_size_in_bytes / 4
    assert numbers < 25 * rank(size) * size < size**2 / 4


@pytest.mark.nightly
def test_a_vmapped_search_is_each_one_by_itself():
    def search(x0):
        return minimize(
            cigar, x0, sigma=1.0, covariance="low_rank", max_evaluations=100
        )

    with jax.enable_x64(True):
        starts = jnp.stack([jnp.ones(8), jnp.arange(8.0)])
        both = jax.jit(jax.vmap(search))(starts)
        alone = [search(start) for start in starts]
        both, alone = jax.device_get((both, alone))
    assert both.state.gaussian.root.directions.shape == (2, 8, 2)
    for i, one in enumerate(alone):
        np.testing.assert_allclose(both.fun[i], one.fun, rtol=1e-6)
        np.testing.assert_allclose(both.x[i], one.x, rtol=1e-6)


def test_it_goes_on_with_workers_and_whole_numbers_bit_by_bit():
    given = {"sigma": 1.0, "covariance": "low_rank", "workers": map, "integers": True}
    x0 = np.full(8, 5.0)

    def fun(x):
        return float(np.sum((x - 2.2) ** 2))

    whole = minimize(fun, x0, max_evaluations=200, **given)
    first = minimize(
        fun, x0, max_evaluations=200, callback=lambda found: found.nit == 9, **given
    )
    assert first.nit == 9
    second = minimize(fun, x0, max_evaluations=200, resume=first, **given)
    assert whole.fun < fun(x0)
    np.testing.assert_array_equal(whole.x, np.round(whole.x))
    chex.assert_trees_all_equal(second.state.gaussian, whole.state.gaussian)
