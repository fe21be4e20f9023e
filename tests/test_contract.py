"""What every optimizer keeps to: one registry of them, one test for each property.

The properties are those of the suite that optax runs on its own optimizers, and what a
transform that evaluates losses itself has to keep besides.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import (
    EVALUATES_PARAMETERS,
    PARAMS,
    REGISTRY,
    X,
    Y,
    every_optimizer,
    losses,
    mean_loss,
    one_of_each,
    steps,
)

import qiaso_jax
from qiaso_jax import node_qiaso, qiaso


@every_optimizer
def test_the_second_step_compiles_nothing(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx = make()
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(state, params, x):
        return tx.update(None, state, params, value_fn=value_fn, x=x, y=Y)

    updates, state = step(tx.init(PARAMS), PARAMS, X)
    params = optax.apply_updates(PARAMS, updates)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, PARAMS)
    assert step(state, params, X + 0.3)[1].step == 2


@pytest.mark.slow
@one_of_each
def test_jitted_steps_equal_unjitted_ones(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx = make()
    state = tx.init(PARAMS)

    def step(state):
        return tx.update(None, state, PARAMS, value_fn=value_fn, x=X, y=Y)

    chex.assert_trees_all_close(jax.jit(step)(state), step(state), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@every_optimizer
def test_a_state_is_made_of_arrays_and_keeps_its_shape(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx = make(optimizer=optax.adam(0.1))
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    state = tx.init(PARAMS)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert state.key.dtype == jnp.uint32
    after = steps(tx, value_fn, num_steps=2)[1]
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    assert after.step == 2
    assert int(optax.tree.get(after.opt_state, "count")) in (1, 2)


@every_optimizer
def test_init_on_shapes_alone(name):
    tx = REGISTRY[name].make(optimizer=optax.adam(1e-3))
    shapes = jax.eval_shape(lambda: PARAMS)
    chex.assert_trees_all_equal(tx.init(shapes), tx.init(PARAMS))


@every_optimizer
def test_a_new_superposition_is_uniform(name):
    info = REGISTRY[name].make().init(PARAMS).info
    num_candidates = float(info.effective_candidates)
    assert num_candidates == REGISTRY[name].settings["num_candidates"]
    assert info.entropy == pytest.approx(np.log(num_candidates))
    assert info.expected_loss == info.best_loss == np.inf
    assert info.kl == info.expected_decrease == info.num_skipped == 0


@pytest.mark.slow
@every_optimizer
def test_the_same_key_gives_the_same_bits(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    of_seed = make(key=3).init(PARAMS)
    for key in (jax.random.key(3), jax.random.key_data(jax.random.key(3))):
        chex.assert_trees_all_equal(make(key=key).init(PARAMS), of_seed)
    rbg = make(key=jax.random.key(3, impl="rbg"))
    first, again = steps(rbg, value_fn), steps(rbg, value_fn)
    chex.assert_trees_all_equal(first, again)
    assert np.isfinite(first[0]["w"]).all()


@pytest.mark.slow
@every_optimizer
def test_seeds_can_be_vmapped(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn

    def train(seed):
        return steps(make(key=seed), value_fn)[0]

    together, alone = jax.jit(jax.vmap(train))(jnp.arange(3)), jax.jit(train)
    for seed in range(3):
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, s=seed: x[s], together),
            alone(seed),
            rtol=1e-4,
            atol=1e-6,
        )
    # Of one node per example, pairs of signs say the same whatever the seed.
    alike = name == "node, exponential"
    assert alike or not np.array_equal(together["w"][0], together["w"][1])


@pytest.mark.slow
@every_optimizer
def test_under_cond(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx = make()
    state = tx.init(PARAMS)

    def update(state):
        return tx.update(None, state, PARAMS, value_fn=value_fn, x=X, y=Y)

    @jax.jit
    def maybe(flag, state):
        return jax.lax.cond(
            flag, update, lambda state: (optax.tree.zeros_like(PARAMS), state), state
        )

    chex.assert_trees_all_close(
        maybe(True, state), jax.jit(update)(state), rtol=1e-5, atol=1e-6
    )
    chex.assert_trees_all_equal(maybe(False, state)[1], state)


@pytest.mark.slow
@every_optimizer
def test_the_centre_is_params_plus_updates(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx = make()
    state = tx.init(PARAMS)
    step = {"w": jnp.full(3, 0.25), "b": jnp.array(-0.125)}
    update = jax.jit(
        lambda updates, params: tx.update(
            updates, state, params, value_fn=value_fn, x=X, y=Y, unknown=1
        )
    )
    hybrid, _ = update(step, PARAMS)
    free, _ = update(None, optax.apply_updates(PARAMS, step))
    chex.assert_trees_all_close(
        hybrid, optax.tree.add(step, free), rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
@every_optimizer
def test_reports_are_scalars_that_are_found_in_wrapped_states(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx = optax.chain(optax.clip(1.0), optax.apply_if_finite(make(), 3))
    state = tx.init(PARAMS)
    assert optax.tree.get(state, "expected_loss") == jnp.inf
    zeros = optax.tree.zeros_like(PARAMS)
    _, state = jax.jit(
        lambda s: tx.update(zeros, s, PARAMS, value_fn=value_fn, x=X, y=Y)
    )(state)
    for field in make().init(PARAMS).info._fields:
        assert jnp.shape(optax.tree.get(state, field)) == ()
    assert 0 < optax.tree.get(state, "expected_loss") < 10


@pytest.mark.slow
@every_optimizer
def test_multi_steps_moves_on_the_last_one(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    every_step = {k: 1 for k in REGISTRY[name].settings if k == "collapse_every"}
    tx = optax.MultiSteps(make(**every_step), every_k_schedule=2)
    state = tx.init(PARAMS)
    zeros = optax.tree.zeros_like(PARAMS)
    update = jax.jit(
        lambda s: tx.update(zeros, s, params=PARAMS, value_fn=value_fn, x=X, y=Y)
    )
    updates, state = update(state)
    chex.assert_trees_all_equal(updates, zeros)
    updates, state = update(state)
    assert (updates["w"] != 0).any()


@pytest.mark.slow
@one_of_each
def test_schedules_equal_injected_hyperparameters(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    schedule = optax.linear_schedule(0.2, 0.1, 4)

    def of_sigma(sigma):
        return make(sigma=sigma)

    injected = optax.inject_hyperparams(of_sigma)(sigma=schedule)
    state = injected.init(PARAMS)
    params = PARAMS
    update = jax.jit(
        lambda s, p: injected.update(None, s, p, value_fn=value_fn, x=X, y=Y)
    )
    for _ in range(3):
        updates, state = update(state, params)
        params = optax.apply_updates(params, updates)
    expected, _ = steps(of_sigma(schedule), value_fn, num_steps=3)
    chex.assert_trees_all_close(params, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"), [*((name, jnp.nan) for name in REGISTRY), ("qiaso", -jnp.inf)]
)
def test_a_step_without_any_finite_loss_does_nothing(name, value):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx = make(optimizer=optax.adam(0.1))
    params, state = PARAMS, tx.init(PARAMS)
    updates = {"w": jnp.ones(3), "b": jnp.array(2.0)}

    def never(params, x, y):
        return value_fn(params, x, y) * 0 + value

    step = jax.jit(lambda s: tx.update(updates, s, params, value_fn=never, x=X, y=Y))
    same, after = step(step(state)[1])
    chex.assert_trees_all_equal(same, updates)
    chex.assert_trees_all_equal(after.opt_state, state.opt_state)
    assert after.info.num_skipped == 2
    assert after.info.num_nonfinite > 0
    assert not getattr(after.info, "collapsed", False)
    none, _ = jax.jit(
        lambda s: qiaso_jax.pseudo_gradient(tx, s, params, value_fn=never, x=X, y=Y)
    )(state)
    chex.assert_trees_all_equal(none, optax.tree.zeros_like(PARAMS))
    # And it goes on as if nothing had been.
    go_on = jax.jit(lambda s: tx.update(None, s, params, value_fn=value_fn, x=X, y=Y))
    updates, after = go_on(go_on(after)[1])
    assert np.isfinite(after.info.expected_loss)
    assert np.isfinite(updates["w"]).all()
    assert after.info.num_skipped == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "bfloat16") for name in REGISTRY), ("qiaso", "float16")],
)
def test_dtypes_are_kept_and_integers_pass_through(name, dtype):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    params = {
        "w": PARAMS["w"].astype(dtype),
        "b": PARAMS["b"],
        "n": jnp.arange(3),
        "on": jnp.array([True]),
    }

    def with_integers(p, x, y):
        return value_fn(p, x, y) + p["n"][0] * p["on"][0]

    tx = make(optimizer=optax.adam(0.05))
    after, state = steps(tx, with_integers, params, num_steps=60)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, params)
    np.testing.assert_array_equal(after["n"], params["n"])
    np.testing.assert_array_equal(after["on"], params["on"])
    assert state.info.expected_loss.dtype == jnp.float32
    if name == "PAPER":  # whose candidates of this size and number do not train
        assert (after["w"] != params["w"]).any()
    else:
        assert mean_loss(after, X, Y) < 0.5 * mean_loss(params, X, Y)


@pytest.mark.slow
@every_optimizer
def test_double_precision(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    with jax.enable_x64(True):
        params = {k: jnp.asarray(np.float64(v)) for k, v in PARAMS.items()}
        after, state = steps(make(), value_fn, params)
        assert after["w"].dtype == state.info.expected_loss.dtype == jnp.float64


@pytest.mark.slow
@one_of_each
def test_a_hybrid_in_a_chain(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx = optax.chain(optax.adam(0.05), make())
    params, state = PARAMS, tx.init(PARAMS)

    @jax.jit
    def step(params, state):
        grads = jax.grad(mean_loss)(params, X, Y)
        updates, state = tx.update(grads, state, params, value_fn=value_fn, x=X, y=Y)
        return optax.apply_updates(params, updates), state

    before = mean_loss(PARAMS, X, Y)
    for _ in range(100):
        params, state = step(params, state)
    assert mean_loss(params, X, Y) < 0.1 * before


@pytest.mark.slow
@every_optimizer
def test_the_pseudo_gradient_is_what_the_optimizer_gets(name):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx, trained = make(optimizer=optax.adam(0.1)), make(optimizer=optax.sgd(1.0))
    state, expected_state = tx.init(PARAMS), trained.init(PARAMS)

    @jax.jit
    def both(state, expected_state):
        call = {"value_fn": value_fn, "x": X, "y": Y}
        return (
            qiaso_jax.pseudo_gradient(tx, state, PARAMS, **call),
            trained.update(None, expected_state, PARAMS, **call),
        )

    for _ in range(2):
        (gradient, new), (updates, expected) = both(state, expected_state)
        chex.assert_trees_all_close(
            gradient, optax.tree.scale(-1, updates), rtol=1e-6, atol=1e-7
        )
        chex.assert_trees_all_equal(new.opt_state, state.opt_state)
        chex.assert_trees_all_close(new.info, expected.info, rtol=1e-5)
        state, expected_state = new, expected
    assert np.any(gradient["w"] != 0)


def wrapped(tx, how):
    return {
        "bare": lambda: tx,
        "chain": lambda: optax.chain(optax.scale(0.5), tx, optax.scale(2.0)),
        "injected": lambda: optax.inject_hyperparams(lambda unused: tx)(unused=0.5),
        "apply_if_finite": lambda: optax.apply_if_finite(tx, 3),
        "multi_steps": lambda: optax.MultiSteps(tx, 1).gradient_transformation(),
    }[how]()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in EVALUATES_PARAMETERS for how in ("bare", "chain")),
        ("chunked", "injected"),
        ("qiaso", "apply_if_finite"),
        ("factorised, measured", "multi_steps"),
    ],
)
def test_ask_and_tell_are_an_update_in_two_halves(name, how):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx = wrapped(make(), how)
    state = told_state = tx.init(PARAMS)
    given = {"w": jnp.array([0.1, 0.2, 0.0]), "b": jnp.array(0.0)}
    update = jax.jit(lambda s: tx.update(given, s, PARAMS, value_fn=value_fn, x=X, y=Y))
    for _ in range(2):
        expected, state = update(state)
        candidates = qiaso_jax.ask(tx, told_state, PARAMS, updates=given)
        values = jax.vmap(lambda p: value_fn(p, X, Y))(candidates)
        told, told_state = qiaso_jax.tell(tx, told_state, PARAMS, values, updates=given)
        chex.assert_trees_all_close(
            (told, told_state), (expected, state), rtol=1e-4, atol=1e-5
        )


def test_the_pseudo_gradient_passes_through_a_chain_as_it_is():
    bare = qiaso(8, 0.1)
    tx = optax.chain(optax.scale(0.5), bare, optax.scale(3.0), optax.adam(0.1))
    call = {"value_fn": mean_loss, "x": X, "y": Y}
    expected, state = qiaso_jax.pseudo_gradient(bare, bare.init(PARAMS), PARAMS, **call)
    found, chained = qiaso_jax.pseudo_gradient(
        tx,
        tx.init(PARAMS),
        PARAMS,
        updates=optax.tree.zeros_like(PARAMS),
        **call,
    )
    chex.assert_trees_all_equal(found, expected)
    chex.assert_trees_all_equal(chained[1], state)
    assert state.step == 1


@pytest.mark.parametrize(
    ("tx", "sentence"),
    [
        (optax.adam(0.1), "exactly one of .* this state is of 0 of them"),
        (optax.chain(optax.clip(1.0), optax.sgd(1.0)), "is of 0 of them"),
        (optax.chain(qiaso(4, 0.1), qiaso(4, 0.1)), "is of 2 of them"),
        (optax.apply_if_finite(qiaso(4, 0.1), 2), r"cannot pass .* ApplyIfFiniteState"),
        (optax.MultiSteps(qiaso(4, 0.1), 2), r"cannot pass .* MultiStepsState"),
    ],
    ids=["adam", "chain", "two", "apply_if_finite", "multi_steps"],
)
def test_what_has_no_step_of_ours_to_part_is_named(tx, sentence):
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=sentence):
        qiaso_jax.pseudo_gradient(tx, state, PARAMS, value_fn=mean_loss, x=X, y=Y)
    if "of them" in sentence:
        with pytest.raises(ValueError, match=f"ask needs.*{sentence}"):
            qiaso_jax.ask(tx, state, PARAMS)
        with pytest.raises(ValueError, match=f"tell needs.*{sentence}"):
            qiaso_jax.tell(tx, state, PARAMS, [1.0] * 4)


def test_the_former_name_of_directions_warns():
    with pytest.warns(DeprecationWarning, match="noise='gaussian' of node_qiaso is"):
        former = node_qiaso(4, 0.1, optimizer=optax.sgd(0.1), noise="gaussian")
    now = node_qiaso(4, 0.1, optimizer=optax.sgd(0.1), directions="gaussian")
    chex.assert_trees_all_equal(
        steps(former, losses, num_steps=1), steps(now, losses, num_steps=1)
    )


def test_noise_within_the_model_cannot_be_asked_for():
    tx = qiaso_jax.node_qiaso(4, optimizer=optax.sgd(0.1))
    with pytest.raises(ValueError, match="node_qiaso evaluates noise within the model"):
        qiaso_jax.ask(tx, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"give update value_fn=.*got none"):
        qiaso_jax.tell(tx, tx.init(PARAMS), PARAMS, [1.0, 2.0])


@every_optimizer
@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"value_fn": None}, ValueError, "give update .*value_fn=.*got n"),
        ({"params": None}, ValueError, "needs the parameters.*params=None"),
        ({"updates": {"w": jnp.ones(3)}}, ValueError, "updates must have the struct"),
        (
            {"updates": {"w": jnp.ones(2), "b": jnp.array(0.0)}},
            ValueError,
            r"updates must have the shapes of params, \(3,\)",
        ),
        (
            {"value_fn": lambda p, x, y: (mean_loss(p, x, y), 0)},
            TypeError,
            "got a tuple",
        ),
        (
            {"value_fn": lambda p, x, y: jnp.sum(p["w"] > 0)},
            (TypeError, ValueError),
            r"got int32|got shape \(\)",
        ),
        (
            {"value_fn": lambda p, x, y: jnp.ones((2, 2)) * p["b"]},
            ValueError,
            r"got shape \(2, 2\)",
        ),
    ],
)
def test_a_bad_update_is_named(name, arguments, error, sentence):
    make, value_fn = REGISTRY[name].make, REGISTRY[name].value_fn
    tx = make()
    call = {"updates": None, "params": PARAMS, "value_fn": value_fn, **arguments}
    params, updates = call.pop("params"), call.pop("updates")
    with pytest.raises(error, match=sentence):
        jax.jit(lambda s: tx.update(updates, s, params, x=X, y=Y, **call))(
            tx.init(PARAMS)
        )


@one_of_each
@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"sigma": 0.0}, ValueError, "sigma must be finite and above 0, got 0"),
        ({"sigma": np.nan}, ValueError, "sigma must be finite and above 0, got nan"),
        ({"sigma": "0.1"}, TypeError, "sigma must be a real number, got '0.1'"),
        ({"sigma": None}, TypeError, "sigma must be a real number, got None"),
        ({"eta": -0.5}, ValueError, "eta must be finite and at least 0, got -0.5"),
        ({"eta": np.inf}, ValueError, "eta must be finite"),
        ({"num_candidates": 0}, ValueError, "num_candidates must be at least 1, got 0"),
        ({"num_candidates": 3.5}, TypeError, "num_candidates must be an int .* 3.5"),
        ({"num_candidates": True}, TypeError, "num_candidates must be an int"),
        ({"candidate_batch_size": 0}, ValueError, "candidate_batch_size must be"),
        ({"optimizer": optax.adam}, TypeError, "optimizer must be an optax gradient"),
        ({"key": 0.5}, TypeError, "key must be an int of 32 bits, a key of"),
    ],
)
def test_bad_arguments_are_named(name, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        REGISTRY[name].make(**arguments)
