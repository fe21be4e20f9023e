import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from qiaso_jax import factorised_qiaso

PARAMS = {"b": jnp.array(0.7), "w": jnp.array([[1.0, -2.0], [0.5, 3.0]])}
FLAT = np.array([0.7, 1.0, -2.0, 0.5, 3.0])
BLOCKS = {"element": [[0], [1], [2], [3], [4]], "leaf": [[0], [1, 2, 3, 4]]}
SCALINGS = {
    None: lambda x: x,
    "zscore": scipy.stats.zscore,
    "rank": lambda x: (scipy.stats.rankdata(x) - 1) / (len(x) - 1) - 0.5,
}


def loss(params, target=0.0):
    w, b = params["w"], params["b"]
    return jnp.sum((w - target) ** 2) + 0.5 * jnp.abs(b) + jnp.sin(w[0, 0] * b)


def loss_in_numpy(x, target=0.0):
    return np.sum((x[1:] - target) ** 2) + 0.5 * abs(x[0]) + np.sin(x[1] * x[0])


def flat_offsets(state):
    """The offsets in float64, shape ``[K, weights]``."""
    b, w = state.candidates["b"], state.candidates["w"]
    return np.concatenate([b[:, None], w.reshape(len(w), -1)], axis=1).astype(float)


def flat(tree):
    return np.concatenate([np.ravel(tree["b"]), np.ravel(tree["w"])]).astype(float)


def expectation(p, offsets, granularity):
    """Σ_k p_ik δ_i^(k), shape ``[weights]``."""
    moved = np.zeros(offsets.shape[1])
    for i, weights in enumerate(BLOCKS[granularity]):
        moved[weights] = p[i] @ offsets[:, weights]
    return moved


def exact_losses(p, offsets, granularity, target):
    """Eq 3 by brute force: one block at a time, the others at their expectation."""
    centre = FLAT + expectation(p, offsets, granularity)
    losses = np.empty_like(p)
    for i, weights in enumerate(BLOCKS[granularity]):
        for k in range(p.shape[1]):
            x = centre.copy()
            x[weights] = FLAT[weights] + offsets[k, weights]
            losses[i, k] = loss_in_numpy(x, target)
    return losses


def amplified(p, scaled, eta):
    p = p * np.exp(-eta * (scaled - scaled.min(axis=1, keepdims=True)))
    return p / p.sum(axis=1, keepdims=True)


def run(tx, params, num_steps, value_fn=loss, **kwargs):
    """Parameters after ``num_steps`` gradient-free steps, and the reports of each."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(None, state, params, value_fn=value_fn, **kwargs)
        return (optax.apply_updates(params, updates), state), state.info

    (params, state), infos = jax.jit(
        lambda carry: jax.lax.scan(step, carry, length=num_steps)
    )((params, tx.init(params)))
    return params, state, infos


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "candidate_batch_size"), [("element", 3), ("leaf", None)]
)
@pytest.mark.parametrize("scaling", [None, "zscore", "rank"])
@pytest.mark.parametrize("collapse", ["expectation", "best"])
def test_exact_steps_are_the_algorithm(
    granularity, scaling, collapse, candidate_batch_size
):
    def eta(step):
        return 0.8 + 0.13 * step**2  # ranks do not sum to ties

    tx = factorised_qiaso(
        7,
        0.3,
        eta,
        granularity=granularity,
        loss_scaling=scaling,
        collapse=collapse,
        collapse_every=3,
        candidate_batch_size=candidate_batch_size,
    )
    update = jax.jit(
        lambda state, target: tx.update(
            None, state, PARAMS, value_fn=loss, target=target
        )
    )
    state = tx.init(PARAMS)
    offsets = flat_offsets(state)
    p = np.full((len(BLOCKS[granularity]), 7), 1 / 7)
    # From the second step on the expectation is not that of a uniform superposition.
    for step, target in enumerate((0.0, 0.5, -0.3)):
        before, losses = p, exact_losses(p, offsets, granularity, target)
        scaled = np.apply_along_axis(SCALINGS[scaling], 1, losses)
        p = amplified(p, scaled, eta(step))
        updates, state = update(state, target)
        if target != -0.3:
            np.testing.assert_allclose(np.exp(state.log_amplitudes), p, atol=1e-5)
            chex.assert_trees_all_equal(updates, optax.tree.zeros_like(PARAMS))
        info = state.info
        assert info.best_loss == pytest.approx(losses.min(), rel=1e-5)
        assert info.expected_loss == pytest.approx(
            np.mean(np.sum(p * losses, axis=1)), rel=1e-5
        )
        assert info.expected_decrease == pytest.approx(
            np.mean(np.sum((before - p) * scaled, axis=1)), abs=1e-4
        )
        kl = np.mean(
            [scipy.stats.entropy(*pair) for pair in zip(p, before, strict=True)]
        )
        assert info.kl == pytest.approx(kl, abs=1e-5)
        assert info.effective_candidates == pytest.approx(
            np.mean(1 / np.sum(p**2, axis=1)), rel=1e-4
        )
        assert info.num_nonfinite == info.num_skipped == 0
    assert info.collapsed
    if collapse == "best":
        p = np.eye(7)[np.argmax(p, axis=1)]
    np.testing.assert_allclose(
        flat(updates), expectation(p, offsets, granularity), atol=1e-5
    )
    np.testing.assert_allclose(state.log_amplitudes, -np.log(7), rtol=1e-6)
    assert not np.array_equal(flat_offsets(state), offsets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "candidate_batch_size"), [("element", None), ("leaf", 5)]
)
@pytest.mark.parametrize("scaling", [None, "zscore", "rank"])
def test_measured_steps_are_the_algorithm(granularity, scaling, candidate_batch_size):
    seen = []

    def recorded(params):
        jax.debug.callback(lambda p: seen.append(flat(p)), params)
        return loss(params)

    tx = factorised_qiaso(
        4,
        0.3,
        0.8,
        granularity=granularity,
        num_measurements=19,
        loss_scaling=scaling,
        collapse_every=2,
        candidate_batch_size=candidate_batch_size,
    )
    update = jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=recorded))
    state = tx.init(PARAMS)
    offsets = flat_offsets(state)
    num_blocks = len(BLOCKS[granularity])
    p = np.full((num_blocks, 4), 1 / 4)
    for _ in range(2):
        seen.clear()
        updates, state = update(state)
        jax.effects_barrier()
        assert len(seen) == 19
        losses = np.array([loss_in_numpy(x) for x in seen])
        scaled = SCALINGS[scaling](losses)
        credited = np.full((num_blocks, 4), scaled.mean())
        for i, weights in enumerate(BLOCKS[granularity]):
            # Which value was drawn is read off the parameters that were evaluated.
            moved = np.array(seen)[:, weights] - FLAT[weights]
            distance = np.abs(moved[:, None] - offsets[None, :, weights]).max(axis=2)
            assert (distance.min(axis=1) < 1e-5).all()
            drawn = distance.argmin(axis=1)
            counts = np.bincount(drawn, minlength=4)
            assert (np.abs(counts - 19 * p[i]) < 1 + 1e-5).all()
            for k in np.unique(drawn):
                credited[i, k] = scaled[drawn == k].mean()
        p = amplified(p, credited, 0.8)
        if not state.info.collapsed:
            np.testing.assert_allclose(np.exp(state.log_amplitudes), p, atol=1e-5)
        assert state.info.best_loss == pytest.approx(losses.min(), rel=1e-5)
    np.testing.assert_allclose(
        flat(updates), expectation(p, offsets, granularity), atol=1e-5
    )


@pytest.mark.slow
def test_as_many_measurements_as_values_give_a_step_of_qiaso():
    seen = []

    def recorded(params):
        jax.debug.callback(lambda p: seen.append(flat(p)), params)
        return loss(params)

    tx = factorised_qiaso(8, 0.3, 2.0, num_measurements=8, loss_scaling="rank")
    updates, _ = tx.update(None, tx.init(PARAMS), PARAMS, value_fn=recorded)
    jax.effects_barrier()
    losses = np.array([loss_in_numpy(x) for x in seen])
    p = amplified(np.full((1, 8), 1 / 8), SCALINGS["rank"](losses)[None], 2.0)[0]
    np.testing.assert_allclose(flat(updates), p @ np.array(seen) - FLAT, atol=1e-5)


@pytest.mark.slow
def test_exact_losses_of_a_sum_decouple():
    def two_steps(value_fn, rest):
        tx = factorised_qiaso(6, 0.4, loss_scaling=None, collapse_every=3)
        state = tx.init(jnp.zeros(3))
        for _ in range(2):
            _, state = tx.update(
                None, state, jnp.array([0.5, *rest]), value_fn=value_fn
            )
        return state

    def separable(x):
        return jnp.sum(jnp.array([1.0, 2.0, 3.0]) * x**2 + jnp.cos(x))

    def coupled(x):
        return separable(x) + x[0] * x[1]

    near, far = (two_steps(separable, r) for r in ([0.0, 0.0], [2.0, -1.0]))
    np.testing.assert_allclose(near.log_amplitudes[0], far.log_amplitudes[0], atol=1e-4)
    assert not np.allclose(near.log_amplitudes[1], far.log_amplitudes[1], atol=0.1)
    x = 0.5 + np.float64(near.candidates[:, 0])
    one_dimensional = -2 * (x**2 + np.cos(x))
    np.testing.assert_allclose(
        near.log_amplitudes[0] - near.log_amplitudes[0, 0],
        one_dimensional - one_dimensional[0],
        atol=1e-4,
    )
    near, far = (two_steps(coupled, r) for r in ([0.0, 0.0], [2.0, -1.0]))
    assert not np.allclose(near.log_amplitudes[0], far.log_amplitudes[0], atol=0.1)


def test_a_separable_loss_is_minimised_in_all_coordinates_at_once():
    def rastrigin(x):
        return jnp.sum(x**2 + 20 * jnp.sin(jnp.pi * x) ** 2)

    sigma = optax.exponential_decay(2.5, 60, 1e-3)
    tx = factorised_qiaso(21, sigma, collapse="best", key=1)
    x, _, infos = run(tx, jnp.linspace(-5, 5, 8), 60, rastrigin)
    np.testing.assert_allclose(x, np.zeros(8), atol=0.01)
    assert infos.best_loss[-1] < 1e-2


def test_sampling_takes_a_value_of_each_block():
    tx = factorised_qiaso(5, 0.3, collapse="sample", collapse_every=2, key=4)
    state = tx.init(PARAMS)
    offsets = flat_offsets(state)
    update = jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=loss))
    for _ in range(2):
        updates, state = update(state)
    distance = np.abs(offsets - flat(updates)).min(axis=0)
    np.testing.assert_allclose(distance, 0, atol=1e-6)
    assert len(set(np.abs(offsets - flat(updates)).argmin(axis=0))) > 1


@pytest.mark.slow
@pytest.mark.parametrize("num_measurements", [None, 9])
@pytest.mark.parametrize("collapse", ["expectation", "best", "sample"])
def test_values_without_a_finite_loss_get_probability_zero(num_measurements, collapse):
    def value_fn(params):
        bad = params["w"][0, 0] > 1.1
        return jnp.where(bad, jnp.nan, loss(params))

    tx = factorised_qiaso(
        9, 0.3, num_measurements=num_measurements, collapse=collapse, collapse_every=9
    )
    state = tx.init(PARAMS)
    bad = 1 + flat_offsets(state)[:, 1] > 1.1
    assert 0 < bad.sum() < 9
    _, state = jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=value_fn))(state)
    np.testing.assert_array_equal(state.log_amplitudes[1] == -np.inf, bad)
    np.testing.assert_allclose(np.exp(state.log_amplitudes).sum(axis=1), 1, atol=1e-5)
    assert state.info.num_nonfinite == bad.sum()
    assert np.isfinite(state.info.expected_loss)


@pytest.mark.parametrize("scaling", [None, "zscore", "rank"])
def test_a_block_without_any_finite_loss_stays(scaling):
    def value_fn(params):
        moved = jnp.abs(params["w"][0, 0] - 1) > 1e-4
        return jnp.where(moved, jnp.inf, loss(params))

    tx = factorised_qiaso(6, 0.3, loss_scaling=scaling)
    update = jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=value_fn))
    updates, state = update(tx.init(PARAMS))
    np.testing.assert_array_equal(flat(updates) == 0, [False, True, *[False] * 3])
    assert state.info.num_nonfinite == 6
    assert state.info.num_skipped == 0
    assert all(np.isfinite(field) for field in state.info)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "num_measurements", "dtype"),
    [
        ("element", None, "bfloat16"),
        ("element", 20, "float16"),
        ("leaf", None, "complex64"),
        ("leaf", 20, "bfloat16"),
    ],
)
def test_dtypes_are_kept_and_integers_pass_through(
    granularity, num_measurements, dtype
):
    params = {"n": jnp.arange(3), "x": jnp.ones(3, dtype), "y": jnp.ones(2)}
    tx = factorised_qiaso(
        5, 0.2, granularity=granularity, num_measurements=num_measurements
    )

    def value_fn(p):
        return jnp.sum(jnp.abs(p["x"]) ** 2).astype(dtype).real + p["n"][0]

    after, state, infos = run(tx, params, 60, value_fn)
    chex.assert_trees_all_equal_dtypes(after, params)
    np.testing.assert_array_equal(after["n"], params["n"])
    assert state.log_amplitudes.shape == ((5 if granularity == "element" else 2), 5)
    assert state.log_amplitudes.dtype == infos.expected_loss.dtype == jnp.float32
    assert infos.expected_loss[-1] < 0.5 * infos.expected_loss[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "num_measurements"),
    [("element", None), ("element", 3), ("leaf", None), ("leaf", 3)],
)
@pytest.mark.parametrize("params", [{"x": jnp.zeros((0, 3))}, jnp.array(2.0)])
def test_empty_arrays_and_scalars(granularity, num_measurements, params):
    tx = factorised_qiaso(
        4,
        0.1,
        granularity=granularity,
        num_measurements=num_measurements,
        collapse_every=2,
    )
    after, _, infos = run(
        tx, params, 3, lambda p: sum(map(jnp.sum, jax.tree.leaves(p)), jnp.zeros(()))
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(after, params)
    # There is no mean over no block.
    has_blocks = granularity == "leaf" or np.size(jax.tree.leaves(params)[0]) > 0
    assert (np.isfinite(infos.expected_loss) == has_blocks).all()
    assert not np.isnan(infos.expected_loss).any()
    assert np.isfinite(infos.expected_decrease).all()


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["element", "leaf"])
@pytest.mark.parametrize("candidate_batch_size", [None, 4])
@pytest.mark.parametrize("num_measurements", [None, 13])
def test_how_many_evaluations_a_step_makes(
    granularity, candidate_batch_size, num_measurements
):
    seen = []

    def counted(params):
        jax.debug.callback(lambda p: seen.append(flat(p)), params)
        return loss(params)

    tx = factorised_qiaso(
        6,
        0.1,
        granularity=granularity,
        num_measurements=num_measurements,
        candidate_batch_size=candidate_batch_size,
    )
    jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=counted))(tx.init(PARAMS))
    jax.effects_barrier()
    assert len(seen) == (num_measurements or 6 * len(BLOCKS[granularity]))
    if granularity == "element":
        assert len(np.unique(np.stack(seen), axis=0)) == len(seen)


def test_chunks_bound_the_memory_of_exact_evaluation():
    num_weights, num_candidates = 400, 10
    params = jnp.zeros(num_weights)

    def temporary_bytes(candidate_batch_size):
        tx = factorised_qiaso(num_candidates, candidate_batch_size=candidate_batch_size)
        step = jax.jit(
            lambda s, p: tx.update(
                None, s, p, value_fn=lambda p: jnp.max(jnp.sort(p) ** 2)
            )
        )
        lowered = step.lower(tx.init(params), params)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    values = 4 * num_candidates * num_weights
    assert temporary_bytes(4) < 20 * values
    assert temporary_bytes(None) > num_weights * values


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"num_measurements": 0}, ValueError, "num_measurements must be at least 1"),
        ({"num_measurements": True}, TypeError, "num_measurements must be an int"),
        ({"collapse_every": 0}, ValueError, "collapse_every must be at least 1"),
        (
            {"granularity": "layer"},
            ValueError,
            "granularity must be one of 'element', 'leaf'; got 'layer'",
        ),
        ({"collapse": "mean"}, ValueError, "collapse must be one of 'expectation', "),
        ({"loss_scaling": "std"}, ValueError, "loss_scaling must be one of None"),
    ],
)
def test_bad_arguments_are_named(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        factorised_qiaso(**arguments)
