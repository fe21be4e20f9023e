import chex
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import qiaso_jax
from qiaso_jax import qiaso

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array(0.7)}
W, B = np.float64(PARAMS["w"]), np.float64(PARAMS["b"])


def loss(params, target=0.0):
    w, b = params["w"], params["b"]
    return jnp.sum((w - target) ** 2) + 0.5 * jnp.abs(b) + jnp.sin(w[0, 0] * b)


def loss_in_numpy(w, b, target=0.0):
    return (
        np.sum((w - target) ** 2, axis=(-2, -1))
        + 0.5 * np.abs(b)
        + np.sin(w[..., 0, 0] * b)
    )


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


def weights_in_numpy(log_prior, losses, scaling, rate):
    """Exponential weights in float64, written from the specification."""
    scaled = {
        None: lambda x: x,
        "zscore": scipy.stats.zscore,
        "rank": lambda x: (scipy.stats.rankdata(x) - 1) / (len(x) - 1) - 0.5,
    }[scaling](losses)
    exponent = log_prior - rate * scaled
    exponent -= exponent.max()
    return exponent - np.log(np.exp(exponent).sum())


@pytest.mark.parametrize("scaling", [None, "zscore", "rank"])
@pytest.mark.parametrize("collapse", ["expectation", "best"])
@pytest.mark.parametrize("candidate_batch_size", [None, 2])
def test_one_step_is_the_algorithm(scaling, collapse, candidate_batch_size):
    tx = qiaso(
        7,
        0.3,
        2.0,
        kl_strength=0.8,
        loss_scaling=scaling,
        collapse=collapse,
        candidate_batch_size=candidate_batch_size,
    )
    state = tx.init(PARAMS)
    candidates = qiaso_jax.ask(tx, state, PARAMS)
    w, b = np.float64(candidates["w"]), np.float64(candidates["b"])
    losses = loss_in_numpy(w, b, 0.2)
    p = np.exp(weights_in_numpy(-np.log(7), losses, scaling, 2.0 / 0.8))
    readout = p if collapse == "expectation" else np.eye(7)[np.argmin(losses)]

    updates, state = tx.update(None, state, PARAMS, value_fn=loss, target=0.2)

    np.testing.assert_allclose(
        updates["w"], np.einsum("k,kij->ij", readout, w) - PARAMS["w"], atol=1e-5
    )
    np.testing.assert_allclose(updates["b"], readout @ b - PARAMS["b"], atol=1e-5)
    info = state.info
    assert info.expected_loss == pytest.approx(p @ losses, rel=1e-4)
    assert info.best_loss == pytest.approx(losses.min(), rel=1e-4)
    assert info.entropy == pytest.approx(scipy.stats.entropy(p), rel=1e-3)
    assert info.kl == pytest.approx(scipy.stats.entropy(p, np.ones(7)), abs=1e-4)
    assert info.effective_candidates == pytest.approx(1 / np.sum(p**2), rel=1e-3)
    assert info.collapsed
    assert info.num_nonfinite == info.num_skipped == info.num_tunnelled == 0
    np.testing.assert_allclose(state.log_amplitudes, -np.log(7), rtol=1e-6)


def test_amplitudes_accumulate_until_the_collapse():
    tx = qiaso(6, 0.3, 0.4, loss_scaling=None, collapse="best", collapse_every=3)
    state = tx.init(PARAMS)
    log_p = np.full(6, -np.log(6))
    for target in (0.0, 0.5, -0.3):
        offsets = jax.tree.map(np.float64, state.candidates)
        losses = loss_in_numpy(W + offsets["w"], B + offsets["b"], target)
        log_p = weights_in_numpy(log_p, losses, None, 0.4)
        updates, state = tx.update(None, state, PARAMS, value_fn=loss, target=target)
        if target != -0.3:
            np.testing.assert_allclose(state.log_amplitudes, log_p, atol=1e-4)
            chex.assert_trees_all_equal(updates, optax.tree.zeros_like(PARAMS))
            chex.assert_trees_all_close(state.candidates, offsets, atol=1e-7)
            assert not state.info.collapsed
    winner = np.argmax(log_p)
    np.testing.assert_allclose(updates["w"], offsets["w"][winner], rtol=1e-6)
    assert state.info.collapsed
    np.testing.assert_allclose(state.log_amplitudes, -np.log(6), rtol=1e-6)
    # Section 2.3: fresh candidates near the chosen weights, which stay in play.
    assert not np.array_equal(state.candidates["w"], offsets["w"])
    np.testing.assert_array_equal(state.candidates["w"][0], np.zeros((2, 2)))


def test_without_the_prior_the_amplitudes_forget():
    tx = qiaso(6, 0.3, 0.4, kl_strength=None, loss_scaling=None, collapse_every=9)
    state = tx.init(PARAMS)
    for target in (1.0, 0.0):
        offsets = jax.tree.map(np.float64, state.candidates)
        _, state = tx.update(None, state, PARAMS, value_fn=loss, target=target)
    losses = loss_in_numpy(W + offsets["w"], B + offsets["b"])
    expected = weights_in_numpy(0.0, losses, None, 0.4)
    np.testing.assert_allclose(state.log_amplitudes, expected, atol=1e-4)


@pytest.mark.parametrize("scaling", [None, "zscore", "rank"])
def test_lemma_3_1_holds_at_every_step(scaling):
    eta, kl_strength = 1.5, 0.7
    tx = qiaso(
        8, 0.5, eta, kl_strength=kl_strength, loss_scaling=scaling, collapse_every=5
    )
    _, _, infos = run(tx, PARAMS, 40)
    slack = infos.expected_decrease - kl_strength / eta * infos.kl
    assert (slack >= -1e-4).all()
    assert (infos.kl > 1e-3).any()


def test_sampling_moves_to_a_candidate():
    tx = qiaso(5, 0.3, collapse="sample", key=4)
    state = tx.init(PARAMS)
    candidates = qiaso_jax.ask(tx, state, PARAMS)
    updates, _ = tx.update(None, state, PARAMS, value_fn=loss)
    moved = optax.apply_updates(PARAMS, updates)
    assert any(np.allclose(moved["w"], w, atol=1e-6) for w in candidates["w"])


def test_small_eta_displaces_along_the_gradient():
    tx = qiaso(4000, 0.01, 1e-3, loss_scaling=None)
    updates, _ = jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=loss))(
        tx.init(PARAMS)
    )
    gradient, _ = jax.flatten_util.ravel_pytree(jax.grad(loss)(PARAMS))
    moved, _ = jax.flatten_util.ravel_pytree(updates)
    expected = -1e-3 * 0.01**2 * gradient
    # Each of 5 coordinates has a relative error of about √(5/2000) = 5 %.
    assert jnp.linalg.norm(moved - expected) < 0.25 * jnp.linalg.norm(expected)


def test_the_displacement_feeds_an_optimizer():
    plain, _, _ = run(qiaso(10, 0.1, optimizer=None), PARAMS, 5)
    same, state, _ = run(qiaso(10, 0.1, optimizer=optax.sgd(1.0)), PARAMS, 5)
    chex.assert_trees_all_close(plain, same, rtol=1e-6)
    trained, state, _ = run(qiaso(10, 0.1, optimizer=optax.adam(0.05)), PARAMS, 400)
    assert optax.tree.get(state, "count") == 400
    np.testing.assert_allclose(trained["w"], np.zeros((2, 2)), atol=0.15)


def test_the_optimizer_steps_on_collapse_only():
    tx = qiaso(10, 0.1, collapse_every=4, optimizer=optax.adam(0.05))
    _, state, infos = run(tx, PARAMS, 10)
    assert optax.tree.get(state, "count") == 2
    assert infos.collapsed.tolist() == [False, False, False, True] * 2 + [False] * 2


def test_the_centre_is_params_plus_updates():
    tx = qiaso(6, 0.2)
    state = tx.init(PARAMS)
    step = {"w": jnp.full((2, 2), 0.3), "b": jnp.array(-0.1)}
    moved = optax.apply_updates(PARAMS, step)
    hybrid, _ = tx.update(step, state, PARAMS, value_fn=loss)
    free, _ = tx.update(None, state, moved, value_fn=loss)
    chex.assert_trees_all_close(
        hybrid, optax.tree.add(step, free), rtol=1e-5, atol=1e-6
    )


def test_hybrid_by_chain():
    tx = optax.chain(optax.adam(0.05), qiaso(10, 0.01, 0.1))
    params, state = PARAMS, tx.init(PARAMS)

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(params)
        updates, state = tx.update(grads, state, params, value_fn=loss)
        return optax.apply_updates(params, updates), state

    for _ in range(300):
        params, state = step(params, state)
    np.testing.assert_allclose(params["w"], np.zeros((2, 2)), atol=0.15)
    assert optax.tree.get(state, "expected_loss") < 0.1


def test_candidates_that_tunnelled_are_the_ones_evaluated():
    tunnelling = qiaso_jax.gaussian_tunnelling(5.0, 1.0, 1.0)
    tx = qiaso(6, 0.01, collapse="best", collapse_every=2, tunnelling=tunnelling)
    state = tx.init(PARAMS)
    _, state = tx.update(None, state, PARAMS, value_fn=loss)
    assert state.info.num_tunnelled == 5
    spread = np.abs(state.candidates["w"]).max(axis=(1, 2))
    best = np.argmax(state.log_amplitudes)
    assert spread[best] < 0.1
    assert (np.delete(spread, best) > 0.1).all()
    # Far away the loss is large: no candidate that has jumped is taken.
    updates, _ = tx.update(None, state, PARAMS, value_fn=loss)
    assert np.abs(updates["w"]).max() < 0.1


def nan_where(condition):
    def value_fn(params):
        return jnp.where(condition(params), jnp.nan, loss(params))

    return value_fn


def test_candidates_without_a_finite_loss_get_probability_zero():
    tx = qiaso(20, 0.3, 1.0, loss_scaling="zscore", collapse_every=3)
    state = tx.init(PARAMS)
    bad = PARAMS["w"][0, 0] + state.candidates["w"][:, 0, 0] > 1.1
    assert 0 < bad.sum() < 20
    _, state = tx.update(
        None, state, PARAMS, value_fn=nan_where(lambda p: p["w"][0, 0] > 1.1)
    )
    np.testing.assert_array_equal(state.log_amplitudes == -np.inf, bad)
    assert np.exp(state.log_amplitudes).sum() == pytest.approx(1, abs=1e-5)
    assert state.info.num_nonfinite == bad.sum()
    assert np.isfinite(state.info.expected_loss)
    assert state.info.num_skipped == 0


@pytest.mark.parametrize("collapse_every", [1, 2])
@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_step_without_any_finite_loss_does_nothing(collapse_every, value):
    tx = qiaso(8, 0.3, collapse_every=collapse_every, optimizer=optax.adam(0.1))
    params, state, _ = run(tx, PARAMS, 4)
    updates = {"w": jnp.ones((2, 2)), "b": jnp.array(2.0)}
    step = jax.jit(lambda s: tx.update(updates, s, params, value_fn=lambda p: value))
    same, after = step(state)
    same, after = step(after)
    chex.assert_trees_all_equal(same, updates)
    chex.assert_trees_all_equal(after.opt_state, state.opt_state)
    assert after.info.num_skipped == 2
    assert after.info.num_nonfinite == 8
    assert after.info.best_loss == after.info.expected_loss == np.inf
    assert not after.info.collapsed
    # And it goes on as if nothing had been.
    updates, after = tx.update(None, after, params, value_fn=loss)
    updates, after = tx.update(None, after, params, value_fn=loss)
    assert np.isfinite(after.info.expected_loss)
    assert np.isfinite(updates["w"]).all()
    assert after.info.num_skipped == 2


def test_integers_and_booleans_pass_through():
    params = {"x": jnp.array([2.0]), "n": jnp.arange(3), "on": jnp.array([True])}
    tx = qiaso(
        6,
        0.1,
        collapse_every=2,
        tunnelling=qiaso_jax.gaussian_tunnelling(),
        optimizer=optax.adam(0.1),
    )
    after, _, _ = run(
        tx, params, 100, lambda p: p["x"][0] ** 2 + p["n"][2] * p["on"][0]
    )
    np.testing.assert_array_equal(after["n"], params["n"])
    np.testing.assert_array_equal(after["on"], params["on"])
    chex.assert_trees_all_equal_dtypes(after, params)
    assert abs(after["x"][0]) < 0.5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64"])
@pytest.mark.parametrize("candidate_batch_size", [None, 4])
def test_dtypes_are_kept(dtype, candidate_batch_size):
    params = {"x": jnp.ones(3, dtype), "y": jnp.ones(2)}
    tx = qiaso(10, 0.1, candidate_batch_size=candidate_batch_size)

    def value_fn(p):
        return jnp.sum(jnp.abs(p["x"]) ** 2).astype(dtype).real

    after, state, infos = run(tx, params, 60, value_fn)
    chex.assert_trees_all_equal_dtypes(after, params)
    assert state.log_amplitudes.dtype == infos.expected_loss.dtype == jnp.float32
    assert infos.expected_loss[-1] < 0.5 * infos.expected_loss[0]


def test_double_precision():
    with jax.enable_x64(True):
        params = {"w": jnp.ones((2, 2), jnp.float64), "b": jnp.ones((), jnp.float64)}
        tx = qiaso(10, 0.1)
        after, state, _ = run(tx, params, 3)
        assert after["w"].dtype == state.log_amplitudes.dtype == jnp.float64


@pytest.mark.parametrize("params", [{}, {"x": jnp.zeros((0, 3))}, jnp.array(2.0)])
def test_empty_trees_and_scalars(params):
    tx = qiaso(4, 0.1, collapse_every=2, tunnelling=qiaso_jax.gaussian_tunnelling())
    after, _, infos = run(
        tx, params, 3, lambda p: sum(map(jnp.sum, jax.tree.leaves(p)), jnp.zeros(()))
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(after, params)
    assert np.isfinite(infos.expected_loss).all()


@pytest.mark.parametrize("collapse", ["expectation", "best", "sample"])
@pytest.mark.parametrize("num_candidates", [1, 2, 3])
def test_few_candidates(collapse, num_candidates):
    tx = qiaso(num_candidates, 0.1, collapse=collapse)
    after, _, _infos = run(tx, PARAMS, 5)
    assert np.isfinite(after["w"]).all()
    if collapse == "best" and num_candidates == 1:
        chex.assert_trees_all_equal(after, PARAMS)


def test_init_on_shapes_alone():
    tx = qiaso(4, 0.1, collapse_every=2, optimizer=optax.adam(1e-3))
    shapes = jax.eval_shape(lambda: PARAMS)
    chex.assert_trees_all_equal(tx.init(shapes), tx.init(PARAMS))
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.eval_shape(tx.init, shapes), tx.init(PARAMS)
    )


PAPER_LIKE = {**qiaso_jax.PAPER, "num_candidates": 8, "collapse_every": 2}


@pytest.mark.parametrize(
    "settings",
    [{}, {"candidate_batch_size": 7}, {"optimizer": optax.adam(0.1)}, PAPER_LIKE],
    ids=["default", "chunks", "adam", "paper"],
)
def test_jitted_steps_equal_unjitted_ones_and_compile_once(settings):
    tx = qiaso(**settings)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def jitted(state, params, target):
        return tx.update(None, state, params, value_fn=loss, target=target)

    state = jitted_state = tx.init(PARAMS)
    for target in (0.0, 0.3, 0.6):
        updates, state = tx.update(None, state, PARAMS, value_fn=loss, target=target)
        jitted_updates, jitted_state = jitted(jitted_state, PARAMS, target)
        chex.assert_trees_all_close(updates, jitted_updates, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(state, jitted_state, rtol=1e-4, atol=1e-5)


def test_the_same_key_gives_the_same_bits():
    for key in (3, jax.random.key(3), jax.random.key_data(jax.random.key(3))):
        first, state, _ = run(qiaso(8, 0.1, key=key), PARAMS, 5)
        second, again, _ = run(qiaso(8, 0.1, key=3), PARAMS, 5)
        chex.assert_trees_all_equal((first, state), (second, again))
    other, _, _ = run(qiaso(8, 0.1, key=4), PARAMS, 5)
    assert not np.array_equal(first["w"], other["w"])


def test_another_generator_of_keys():
    tx = qiaso(8, 0.1, key=jax.random.key(3, impl="rbg"))
    _, state, _ = run(tx, PARAMS, 3)
    assert state.key.dtype == jnp.uint32


def test_seeds_can_be_vmapped():
    def train(seed):
        return run(qiaso(8, 0.1, collapse_every=2, key=seed), PARAMS, 6)[0]

    together = jax.vmap(train)(jnp.arange(3))
    for seed in range(3):
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, s=seed: x[s], together), train(seed), rtol=1e-4
        )
    assert not np.allclose(together["w"][0], together["w"][1])


def test_under_cond():
    tx = qiaso(8, 0.1, tunnelling=qiaso_jax.gaussian_tunnelling())
    state = tx.init(PARAMS)

    @jax.jit
    def maybe(flag, state):
        return jax.lax.cond(
            flag,
            lambda: tx.update(None, state, PARAMS, value_fn=loss),
            lambda: (optax.tree.zeros_like(PARAMS), state),
        )

    chex.assert_trees_all_close(
        maybe(True, state), tx.update(None, state, PARAMS, value_fn=loss), rtol=1e-5
    )
    chex.assert_trees_all_equal(maybe(False, state)[1], state)


def test_sigma_and_eta_by_inject_hyperparams():
    injected = optax.inject_hyperparams(
        qiaso, static_args=("num_candidates", "collapse_every", "key")
    )(sigma=optax.linear_schedule(0.2, 0.1, 4), eta=0.5)
    scheduled = qiaso(sigma=optax.linear_schedule(0.2, 0.1, 4), eta=0.5)
    params, state, _ = [*run_wrapped(injected, 4)]
    expected, _, _ = run(scheduled, PARAMS, 4)
    chex.assert_trees_all_close(params, expected, rtol=1e-4, atol=1e-5)
    assert state.hyperparams["eta"] == 0.5
    # A value can be set by hand, without compiling again.
    state.hyperparams["eta"] = jnp.array(0.0)
    updates, _ = injected.update(
        optax.tree.zeros_like(PARAMS), state, PARAMS, value_fn=loss
    )
    np.testing.assert_allclose(updates["w"], np.zeros((2, 2)), atol=1e-6)


def run_wrapped(tx, num_steps):
    params, state = PARAMS, tx.init(PARAMS)
    update = jax.jit(lambda s, p: tx.update(None, s, p, value_fn=loss))
    for _ in range(num_steps):
        updates, state = update(state, params)
        params = optax.apply_updates(params, updates)
    return params, state, None


def test_integers_must_be_static_under_inject_hyperparams():
    with pytest.raises(TypeError, match=r"num_candidates.*static_args"):
        optax.inject_hyperparams(qiaso)(sigma=0.1).init(PARAMS)


def test_multi_steps_moves_on_the_last_one():
    tx = optax.MultiSteps(qiaso(8, 0.1), every_k_schedule=2)
    state = tx.init(PARAMS)
    zeros = optax.tree.zeros_like(PARAMS)
    updates, state = tx.update(zeros, state, params=PARAMS, value_fn=loss)
    chex.assert_trees_all_equal(updates, zeros)
    updates, state = tx.update(zeros, state, params=PARAMS, value_fn=loss)
    assert (updates["w"] != 0).all()


def test_nnx_optimizer():
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    graph, _params = nnx.split(model)
    x = jnp.array([[1.0, 2.0, -1.0], [0.5, 0.1, 0.3]])
    y = jnp.array([[1.0], [0.0]])

    def value_fn(params, x, y):
        return jnp.mean((nnx.merge(graph, params)(x) - y) ** 2)

    tx = qiaso(20, 0.05, optimizer=optax.adam(0.05))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = value_fn(nnx.state(model, nnx.Param), x, y)
    step = nnx.jit(
        lambda model, optimizer: optimizer.update(
            model,
            optax.tree.zeros_like(nnx.state(model, nnx.Param)),
            value_fn=value_fn,
            x=x,
            y=y,
        )
    )
    for _ in range(100):
        step(model, optimizer)
    assert value_fn(nnx.state(model, nnx.Param), x, y) < 0.05 * before


@pytest.mark.parametrize("num_candidates", [1, 2, 7])
@pytest.mark.parametrize("candidate_batch_size", [None, 3])
def test_a_step_evaluates_each_candidate_once(num_candidates, candidate_batch_size):
    seen = []

    def counted(params):
        jax.debug.callback(lambda w: seen.append(np.array(w)), params["w"])
        return loss(params)

    tx = qiaso(num_candidates, 0.1, candidate_batch_size=candidate_batch_size)
    jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=counted))(tx.init(PARAMS))
    jax.effects_barrier()
    assert len(seen) == num_candidates
    assert len(np.unique(np.stack(seen), axis=0)) == num_candidates


def test_chunks_keep_memory_independent_of_the_candidates():
    num_weights = 50_000
    params = jnp.zeros(num_weights)

    def temporary_bytes(num_candidates, candidate_batch_size):
        tx = qiaso(num_candidates, candidate_batch_size=candidate_batch_size)
        state = tx.init(params)
        step = jax.jit(lambda s, p: tx.update(None, s, p, value_fn=lambda p: p @ p))
        return step.lower(state, params).compile().memory_analysis().temp_size_in_bytes

    in_chunks = temporary_bytes(256, 4)
    assert in_chunks < 32 * 4 * num_weights
    assert in_chunks < 1.1 * temporary_bytes(64, 4)
    assert temporary_bytes(256, None) > 100 * 4 * num_weights


def test_all_candidates_at_once():
    tx = qiaso(6, 0.1)
    state = tx.init(PARAMS)
    expected = tx.update(None, state, PARAMS, value_fn=loss, target=0.1)
    together = tx.update(
        None,
        state,
        PARAMS,
        candidates_value_fn=lambda c, target: jax.vmap(lambda p: loss(p, target))(c),
        target=0.1,
    )
    chex.assert_trees_all_close(together, expected, rtol=1e-6)


def test_the_papers_settings_run():
    assert qiaso_jax.PAPER["num_candidates"] == 30
    _, _, infos = run(qiaso(**qiaso_jax.PAPER), PARAMS, 30)
    assert infos.collapsed.tolist() == ([False] * 9 + [True]) * 3
    assert infos.num_tunnelled[0] == 29
    assert (infos.expected_decrease >= -1e-5).all()
    # T_0 = 1 and the floor of the temperature, 1e-3.
    eta = qiaso_jax.PAPER["eta"]
    assert eta(0) == 1
    assert eta(10**6) == pytest.approx(1e3)
    with pytest.raises(TypeError):
        qiaso_jax.PAPER["sigma"] = 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"num_candidates": 0}, ValueError, "num_candidates must be at least 1, got 0"),
        ({"num_candidates": -3}, ValueError, "num_candidates must be at least 1"),
        (
            {"num_candidates": 3.5},
            TypeError,
            "num_candidates must be an int .* got 3.5",
        ),
        ({"num_candidates": True}, TypeError, "num_candidates must be an int"),
        ({"num_candidates": "30"}, TypeError, "num_candidates must be an int"),
        ({"collapse_every": 0}, ValueError, "collapse_every must be at least 1"),
        ({"candidate_batch_size": 0}, ValueError, "candidate_batch_size must be"),
        ({"sigma": 0.0}, ValueError, "sigma must be finite and above 0, got 0"),
        ({"sigma": -1}, ValueError, "sigma must be finite and above 0, got -1"),
        ({"sigma": np.nan}, ValueError, "sigma must be finite and above 0, got nan"),
        (
            {"sigma": np.ones(3)},
            ValueError,
            r"sigma must be a scalar, got shape \(3,\)",
        ),
        ({"sigma": None}, TypeError, "sigma must be a real number, got None"),
        ({"eta": -0.5}, ValueError, "eta must be finite and at least 0, got -0.5"),
        ({"eta": np.inf}, ValueError, "eta must be finite"),
        ({"kl_strength": 0}, ValueError, "kl_strength must be finite and above 0"),
        ({"collapse": "mean"}, ValueError, "collapse must be one of 'expectation', "),
        ({"loss_scaling": "std"}, ValueError, "loss_scaling must be one of None"),
        ({"tunnelling": 0.1}, TypeError, "made by qiaso_jax.gaussian_tunnelling"),
        ({"optimizer": optax.adam}, TypeError, "optimizer must be an optax gradient"),
        ({"key": 0.5}, TypeError, "key must be an int, a key of jax.random.key"),
    ],
)
def test_bad_arguments_are_named(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        qiaso(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"value_fn": None}, ValueError, "give update one of value_fn=.*got neither"),
        ({"candidates_value_fn": loss}, ValueError, "got both"),
        ({"params": None}, ValueError, "needs the parameters.*params=None"),
        (
            {"updates": {"w": jnp.ones((2, 2))}},
            ValueError,
            "updates must have the struct",
        ),
        (
            {"updates": {"w": jnp.ones(2), "b": jnp.array(0.0)}},
            ValueError,
            r"updates must have the shapes of params, \(2, 2\)",
        ),
        (
            {"params": {"v": jnp.ones(2)}},
            ValueError,
            "state.candidates must have the str",
        ),
        ({"value_fn": lambda p: p["w"]}, ValueError, r"a scalar, got shape \(2, 2\)"),
        ({"value_fn": lambda p: (loss(p), 0)}, TypeError, "got a tuple"),
        ({"value_fn": lambda p: loss(p) + 0j}, TypeError, "got complex64"),
        ({"value_fn": lambda p: jnp.sum(p["w"] > 0)}, TypeError, "got int32"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_bad_update_is_named(arguments, error, sentence, wrap):
    tx = qiaso(4, 0.1, collapse_every=2)
    arguments = {"updates": None, "params": PARAMS, "value_fn": loss, **arguments}
    params, updates = arguments.pop("params"), arguments.pop("updates")
    step = wrap(lambda state: tx.update(updates, state, params, **arguments))
    with pytest.raises(error, match=sentence):
        step(tx.init(PARAMS))
