"""The arguments of ``update``: whom they reach, and what is said of wrong ones."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import PARAMS, REGISTRY, X, Y, one_of_each, steps

import qiaso_jax
from qiaso_jax import node_qiaso, qiaso


def loss(params):
    return jnp.sum(params["w"] ** 2)


def recording(seen):
    """An optimizer that notes what it gets besides a gradient."""

    def update(updates, state, params=None, **extra):
        seen.append(extra)
        return optax.tree.scale(-1, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


@one_of_each
def test_extra_arguments_and_the_expected_loss_reach_the_inner_optimizer(name):
    entry, seen = REGISTRY[name], []
    tx = entry.make(optimizer=optax.chain(optax.identity(), recording(seen)))
    call = {"value_fn": entry.value_fn, "x": X, "y": Y}
    _, state = tx.update(None, tx.init(PARAMS), PARAMS, anything=7, **call)
    assert seen[-1]["anything"] == 7
    assert seen[-1]["x"] is X
    assert not {"value_fn", "candidates_value_fn"} & seen[-1].keys()
    assert seen[-1]["value"] == state.info.expected_loss
    tx.update(None, tx.init(PARAMS), PARAMS, value=3.0, **call)
    assert seen[-1]["value"] == 3.0


@one_of_each
def test_reduce_on_plateau_within(name):
    entry = REGISTRY[name]
    plateau = optax.contrib.reduce_on_plateau(patience=1, factor=0.5)
    tx = entry.make(optimizer=optax.chain(optax.adam(0.1), plateau))
    _, state = steps(
        tx,
        lambda p, x, y: (
            entry.value_fn(p, x, y) * 0 + 1 + 1e-3 * (entry.value_fn(p, x, y))
        ),
        num_steps=12,
    )
    assert optax.tree.get(state, "scale") < 1


def test_an_optimizer_that_needs_more_is_named():
    tx = qiaso(4, optimizer=optax.lbfgs())
    with pytest.raises(TypeError, match=r"optimizer needs arguments .* no line search"):
        tx.update(None, tx.init(PARAMS), PARAMS, value_fn=loss)

    def broken(updates, state, params=None):
        raise TypeError("of its own")

    own = optax.GradientTransformation(lambda params: (), broken)
    tx = qiaso(4, optimizer=own)
    with pytest.raises(TypeError, match=r"^of its own"):
        tx.update(None, tx.init(PARAMS), PARAMS, value_fn=loss)


@one_of_each
def test_arguments_of_value_fn_that_are_called_as_those_of_update(name):
    entry = REGISTRY[name]
    tx = entry.make()

    def value_fn(params, state, updates, x, y):
        return entry.value_fn(params, x, y) * state + updates

    expected, _ = tx.update(
        None,
        tx.init(PARAMS),
        PARAMS,
        value_fn=functools.partial(value_fn, state=2.0, updates=1.0),
        x=X,
        y=Y,
    )
    updates, _ = tx.update(
        None,
        tx.init(PARAMS),
        PARAMS,
        value_fn=value_fn,
        value_kwargs={"state": 2.0, "updates": 1.0},
        x=X,
        y=Y,
    )
    chex.assert_trees_all_equal(updates, expected)


TX = qiaso(4, 0.1)
STATE = TX.init(PARAMS)


def takes_state(params, state):
    return loss(params) * state


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "sentence"),
    [
        (
            (None, STATE, PARAMS),
            {"value_fn": takes_state, "state": 2.0},
            TypeError,
            r"an argument 'state' of its own.*value_kwargs=\{'state': ...\}",
        ),
        (
            (None, STATE),
            {"value_fn": takes_state, "params": PARAMS},
            TypeError,
            r"value_fn needs 'state'.*value_kwargs=\{...\}",
        ),
        (
            (None, STATE, PARAMS),
            {"value_fn": loss, "value_kwargs": {"other": 1}},
            TypeError,
            r"value_kwargs names \['other'\], which value_fn does not take",
        ),
        (
            (None, STATE, PARAMS),
            {"value_fn": loss, "value_kwargs": [1]},
            TypeError,
            r"value_kwargs must be a dict .*got \[1\]",
        ),
        ((None, STATE, PARAMS, loss), {}, TypeError, "got 4 positional arguments"),
        ((None,), {"value_fn": loss}, TypeError, "call update.updates, state, params"),
        ((None, STATE, None), {"value_fn": loss}, ValueError, "got params=None"),
        (
            (None, STATE, PARAMS),
            {"value_fn": 3.0},
            TypeError,
            "must be a function .*3.0",
        ),
        (
            (None, STATE, PARAMS),
            {"candidates_value_fn": 3.0},
            TypeError,
            "candidates_value_fn must be a function",
        ),
        (
            (None, STATE, PARAMS),
            {"value_fn": lambda *args: loss(args[0]), "x": 1},
            TypeError,
            r"value_fn must name its arguments.*\(\*args\)",
        ),
        (
            (None, STATE, PARAMS),
            {"value_fn": lambda: 1.0},
            TypeError,
            "value_fn must take the parameters as its first argument",
        ),
        (
            (None, STATE, PARAMS),
            {"value_fn": lambda p, x: loss(p)},
            TypeError,
            "value_fn needs 'x', which update was not given",
        ),
        (
            (None, STATE, PARAMS),
            {},
            ValueError,
            "got neither. If it was given.*qiaso_jax.flax.TrainState does",
        ),
    ],
)
def test_a_wrong_call_of_update_is_named(args, kwargs, error, sentence):
    with pytest.raises(error, match=sentence):
        TX.update(*args, **kwargs)


def test_all_by_keyword():
    by_position = TX.update(None, STATE, PARAMS, value_fn=loss)
    by_keyword = TX.update(updates=None, state=STATE, params=PARAMS, value_fn=loss)
    chex.assert_trees_all_equal(by_position, by_keyword)


@one_of_each
@pytest.mark.parametrize(
    "concrete",
    [float, lambda v: np.asarray(v).sum(), lambda v: v if v > 0 else -v],
    ids=["float", "NumPy", "if"],
)
def test_a_value_that_jax_cannot_trace_is_named(name, concrete):
    entry = REGISTRY[name]
    tx = entry.make()

    def value_fn(params, x, y):
        values = entry.value_fn(params, x, y)
        return values * 0 + concrete(jnp.sum(values))

    with pytest.raises(TypeError, match="value_fn must be traceable by JAX, and"):
        jax.jit(lambda s: tx.update(None, s, PARAMS, value_fn=value_fn, x=X, y=Y))(
            tx.init(PARAMS)
        )


def test_a_near_miss_of_a_name_is_warned_of():
    def value_fn(params, label_smoothing=0.0):
        return loss(params) + label_smoothing

    with pytest.warns(UserWarning, match="'label_smoothin', which update was given"):
        TX.update(None, STATE, PARAMS, value_fn=value_fn, label_smoothin=0.1)
    TX.update(None, STATE, PARAMS, value_fn=value_fn, batch=0.1)


AUX = {"norm": jnp.array(0.0), "count": jnp.array(3)}


@one_of_each
def test_what_value_fn_returns_besides_comes_back_of_the_centre(name):
    entry = REGISTRY[name]
    tx, plain = entry.make(has_aux=True), entry.make()

    def with_aux(params, x, y):
        return entry.value_fn(params, x, y), {
            "norm": jnp.sum(params["w"] ** 2),
            "count": jnp.array(3),
        }

    given = {"w": jnp.full(3, 0.5), "b": jnp.float32(0)}
    update = jax.jit(lambda s: tx.update(given, s, PARAMS, value_fn=with_aux, x=X, y=Y))
    updates, state = update(tx.init(PARAMS))
    aux = optax.tree.get(state, "aux")
    assert aux["norm"] == pytest.approx(float(jnp.sum((PARAMS["w"] + 0.5) ** 2)))
    assert aux["count"] == 3
    expected, _ = jax.jit(
        lambda s: plain.update(given, s, PARAMS, value_fn=entry.value_fn, x=X, y=Y)
    )(plain.init(PARAMS))
    chex.assert_trees_all_close(updates, expected, rtol=1e-5, atol=1e-7)
    # From the second step on the state keeps its structure, as a scan wants it.
    _, again = update(state)
    chex.assert_trees_all_equal_structs(state, again)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, again)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"value_fn": loss}, TypeError, r"must return \(loss, aux\) with has_aux=True"),
        ({"value_fn": lambda p: (loss(p),)}, TypeError, r"must return \(loss, aux\)"),
        (
            {"candidates_value_fn": lambda c: (jnp.zeros(4), 0)},
            ValueError,
            "give update value_fn=.*got none",
        ),
    ],
)
def test_what_lacks_aux_is_named(arguments, error, sentence):
    tx = qiaso(4, has_aux=True)
    with pytest.raises(error, match=sentence):
        tx.update(None, tx.init(PARAMS), PARAMS, **arguments)


def test_aux_is_asked_for():
    with pytest.raises(TypeError, match="with has_aux=True it may return"):
        TX.update(None, STATE, PARAMS, value_fn=lambda p: (loss(p), 0))
    with pytest.raises(ValueError, match="has_aux must be one of False, True"):
        qiaso(4, has_aux="yes")


@pytest.mark.parametrize(
    ("factory", "named", "missing"),
    [
        (
            functools.partial(node_qiaso, optimizer=optax.sgd(0.1)),
            {"num_candidates": 4, "examples": 0.5, "candidate_batch_size": 4},
            "examples, candidate_batch_size",
        ),
        (
            qiaso,
            {"num_candidates": 4, "candidate_batch_size": 2},
            "collapse_every, candidate_batch_size",
        ),
        (
            qiaso_jax.factorised_qiaso,
            {"num_candidates": 4, "num_measurements": 8},
            "num_measurements, collapse_every",
        ),
    ],
)
def test_what_must_be_static_is_named_at_once(factory, named, missing):
    injected = optax.inject_hyperparams(factory, static_args=("num_candidates", "key"))
    with pytest.raises(TypeError, match=f"{missing} must be.*static_args="):
        injected(**named).init(PARAMS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bad"), [*((name, jnp.inf) for name in REGISTRY), ("qiaso", -jnp.inf)]
)
def test_infinite_losses_under_debug_nans(name, bad):
    """Unjitted: nothing of our own arithmetic is NaN on the way."""
    entry = REGISTRY[name]
    tx = entry.make(optimizer=optax.adam(0.1))

    def value_fn(params, x, y):
        values = entry.value_fn(params, x, y)
        limit = x[:, 0] if values.ndim else 0.0
        return jnp.where(params["w"][0] + limit > PARAMS["w"][0], bad, values)

    with jax.debug_nans(True):
        state = tx.init(PARAMS)
        for _ in range(2):
            updates, state = tx.update(None, state, PARAMS, value_fn=value_fn, x=X, y=Y)
    assert state.info.num_nonfinite > 0
    assert np.isfinite(updates["w"]).all()


@pytest.mark.slow
@one_of_each
def test_half_precision_with_adam_stays_a_number(name):
    """Squares of small pseudo-gradients leave the range of float16."""
    entry = REGISTRY[name]
    params = jax.tree.map(lambda x: x.astype(jnp.float16), PARAMS)
    tx = entry.make(optimizer=optax.adam(0.01))

    def small(params, x, y):
        return 1e-3 * entry.value_fn(params, x, y)

    after, state = steps(tx, small, params, num_steps=100)
    assert after["w"].dtype == jnp.float16
    assert np.isfinite(after["w"]).all()
    assert np.any(after["w"] != params["w"])
    assert optax.tree.get(state, "nu")["w"].dtype == jnp.float32


def test_numbers_of_best_so_far():
    best = None
    for candidates, losses in (
        ({"x": jnp.arange(3.0), "s": "a"}, [float("nan"), float("inf"), float("nan")]),
        ({"x": jnp.arange(3.0, 6.0), "s": "a"}, [2**70 + 1, 2**70, 2**70 + 2]),
        ({"x": jnp.arange(6.0, 9.0), "s": "a"}, np.array([2.0**71, np.nan, 2.0**70])),
    ):
        before, best = best, qiaso_jax.best_so_far(best, candidates, losses)
        if before is None:
            assert best.loss == float("inf")
            assert best.params["x"] == 0
    assert best.params["x"] == 4
    assert best.loss == 2**70
    with pytest.raises(ValueError, match="one number for each of 3 candidates, got 2"):
        qiaso_jax.best_so_far(best, {"x": jnp.arange(3.0)}, [1.0, 2.0])
