"""Which leaves move, what the others are, and what is said where none can."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import PARAMS, REGISTRY, X, Y, losses, one_of_each

import qiaso_jax

FIXED = {"scale": jnp.float32(2.0), "head": {"v": jnp.array([1.0, 2.0])}}
MASKS = {
    "tree": {"w": True, "b": True, "scale": False, "head": {"v": False}},
    "prefix": {"w": True, "b": True, "scale": False, "head": False},
    "function": lambda params: {
        "w": True,
        "b": True,
        "scale": False,
        "head": jax.tree.map(lambda x: x.ndim == 0, params["head"]),
    },
    "numpy": {"w": np.True_, "b": True, "scale": np.bool_(0), "head": False},
}


def with_fixed(value_fn):
    def fun(params, x, y):
        seen = params["scale"] * params["head"]["v"][0]
        assert seen.shape == ()
        return value_fn(params, x, y) * seen

    return fun


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("qiaso", "tree"),
        ("PAPER", "prefix"),
        ("factorised, exact", "function"),
        ("factorised, measured", "numpy"),
        ("node", "function"),
    ],
)
def test_masked_leaves_are_seen_and_neither_moved_nor_stored(name, how):
    entry = REGISTRY[name]
    params = {**PARAMS, **FIXED}
    tx = entry.make(mask=MASKS[how], optimizer=optax.adam(0.1))
    state = tx.init(params)
    paths = [
        jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)
    ]
    assert not any("scale" in path or "head" in path for path in paths)
    assert any("opt_state" in path and "'w'" in path for path in paths)
    updates, state = tx.update(
        None, state, params, value_fn=with_fixed(entry.value_fn), x=X, y=Y
    )
    chex.assert_trees_all_equal(
        (updates["scale"], updates["head"]), optax.tree.zeros_like((0.0, FIXED["head"]))
    )
    # The same as if they were no parameters at all.
    alone = entry.make(optimizer=optax.adam(0.1))
    expected, _ = alone.update(
        None,
        alone.init(PARAMS),
        PARAMS,
        value_fn=lambda params, x, y: with_fixed(entry.value_fn)(
            {**params, **FIXED}, x, y
        ),
        x=X,
        y=Y,
    )
    chex.assert_trees_all_close(
        {"w": updates["w"], "b": updates["b"]}, expected, rtol=1e-5, atol=1e-7
    )


@one_of_each
def test_updates_of_masked_leaves_pass_and_are_seen(name):
    entry = REGISTRY[name]
    params = {**PARAMS, **FIXED}
    tx = entry.make(mask=MASKS["prefix"])
    given = optax.tree.zeros_like(params)
    given["scale"] = jnp.float32(-1.5)
    updates, _ = tx.update(
        given, tx.init(params), params, value_fn=with_fixed(entry.value_fn), x=X, y=Y
    )
    assert updates["scale"] == -1.5
    params["scale"] = jnp.float32(0.5)
    expected, _ = tx.update(
        None, tx.init(params), params, value_fn=with_fixed(entry.value_fn), x=X, y=Y
    )
    chex.assert_trees_all_close(updates["w"], expected["w"], rtol=1e-5)


def test_masked_leaves_of_candidates_that_are_asked_for():
    tx = qiaso_jax.qiaso(4, 0.1, mask=MASKS["prefix"], directions="gaussian")
    params = {**PARAMS, **FIXED}
    candidates = qiaso_jax.ask(tx, tx.init(params), params)
    assert candidates["head"]["v"].shape == (4, 2)
    np.testing.assert_array_equal(candidates["head"]["v"][3], FIXED["head"]["v"])
    assert len(np.unique(candidates["w"])) == 12
    told, _ = qiaso_jax.tell(tx, tx.init(params), params, [1.0, 2.0, 3.0, 4.0])
    assert told["scale"] == 0

    def together(candidates):
        assert candidates["scale"].shape == (4,)
        return jnp.arange(1.0, 5.0)

    updates, _ = tx.update(None, tx.init(params), params, candidates_value_fn=together)
    chex.assert_trees_all_close(updates, told, rtol=1e-6)


def test_what_jit_does_not_take_is_asked_and_told_too():
    params = {**PARAMS, "name": "relu", "fun": jax.nn.relu, "key": jax.random.key(0)}
    tx = qiaso_jax.qiaso(4, 0.1)
    state = tx.init(params)
    candidates = qiaso_jax.ask(tx, state, params)
    assert candidates["name"] == "relu"
    assert candidates["fun"] is jax.nn.relu
    assert candidates["key"].shape == (4,)
    updates, _ = qiaso_jax.tell(tx, state, params, [1.0, 2.0, 3.0], indices=[3, 2, 1])
    assert updates["name"] is None
    expected, _ = qiaso_jax.tell(tx, tx.init(PARAMS), PARAMS, [np.nan, 3.0, 2.0, 1.0])
    chex.assert_trees_all_equal(updates["w"], expected["w"])


def test_masks_and_pseudo_gradients():
    tx = qiaso_jax.qiaso(4, 0.1, mask=MASKS["prefix"], directions="gaussian")
    params = {**PARAMS, **FIXED}

    def loss(params):
        return jnp.sum(params["w"] ** 2) * params["scale"]

    gradient, _ = qiaso_jax.pseudo_gradient(tx, tx.init(params), params, value_fn=loss)
    chex.assert_trees_all_equal(gradient["head"]["v"], jnp.zeros(2))
    assert np.all(gradient["w"] != 0)
    ratio = qiaso_jax.signal_to_noise(tx, tx.init(params), params, value_fn=loss)
    chex.assert_trees_all_equal_structs(ratio, params)
    assert ratio["scale"] == ratio["head"]["v"] == 0
    assert np.isfinite(ratio["w"])


@pytest.mark.parametrize(
    ("mask", "error", "sentence"),
    [
        ({"v": True}, ValueError, "mask must be a boolean, or a pytree of these"),
        ({"w": 1.0, "b": True}, TypeError, r"got 1.0 for params\['w'\]"),
        ({"w": "yes", "b": True}, TypeError, r"got 'yes' for params\['w'\]"),
        (lambda params: None, ValueError, "mask must be a boolean, or a pytree"),
        (False, ValueError, "params must have a leaf .* mask.*; got float32"),
    ],
)
@one_of_each
def test_a_bad_mask_is_named(name, mask, error, sentence):
    with pytest.raises(error, match=sentence):
        REGISTRY[name].make(mask=mask).init(PARAMS)


OTHERS = {
    "typed key": jax.random.key(0),
    "None": None,
    "string": "relu",
    "function": jax.nn.relu,
    "object": object(),
    "bytes": np.array([b"a"]),
    "integers": jnp.arange(3),
    "int4": jnp.ones(2, jnp.int4),
    "booleans": np.array([True, False]),
    "Python int": 3,
    "raw key": jax.random.PRNGKey(0),
}


@one_of_each
def test_leaves_that_are_no_weights_pass_through(name):
    entry = REGISTRY[name]
    params = {**PARAMS, "others": OTHERS}
    seen = []

    def value_fn(params, x, y):
        seen.append(params["others"])
        return entry.value_fn(params, x, y)

    tx = entry.make(optimizer=optax.adam(0.1))
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(None, state, params, value_fn=value_fn, x=X, y=Y)
    for kind, other in OTHERS.items():
        update = updates["others"][kind]
        if kind in ("typed key", "None", "string", "function", "object", "bytes"):
            assert update is None
            assert seen[-1][kind] is other or kind == "typed key"
        else:
            assert not np.any(update)
            np.testing.assert_array_equal(seen[-1][kind], other)
    assert np.all(updates["w"] != 0)
    # A gradient of equinox has None in their place.
    given = {**optax.tree.zeros_like(PARAMS), "others": dict.fromkeys(OTHERS)}
    hybrid, _ = tx.update(given, tx.init(params), params, value_fn=value_fn, x=X, y=Y)
    assert hybrid["others"] == dict.fromkeys(OTHERS)


@pytest.mark.slow
@one_of_each
def test_an_equinox_module_as_it_stands(name):
    model = eqx.nn.MLP(3, "scalar", 4, 1, key=jax.random.key(0))

    def value_fn(model, x, y):
        errors = (jax.vmap(model)(x) - y) ** 2
        return errors if name == "node" else jnp.mean(errors)

    tx = REGISTRY[name].make(num_candidates=16, optimizer=optax.adam(0.05))
    state = tx.init(model)

    @eqx.filter_jit
    def step(model, state):
        updates, state = tx.update(None, state, model, value_fn=value_fn, x=X, y=Y)
        return eqx.apply_updates(model, updates), state

    before = jnp.mean(value_fn(model, X, Y))
    for _ in range(60):
        model, state = step(model, state)
    assert jnp.mean(value_fn(model, X, Y)) < 0.6 * before
    assert model.activation is jax.nn.relu


@one_of_each
@pytest.mark.parametrize(
    ("params", "error", "sentence"),
    [
        ({"w": jnp.ones(3, jnp.int8)}, ValueError, "nothing to move; got int8"),
        ({"w": "relu"}, ValueError, "nothing to move; got str"),
        (
            {"layer": [jnp.ones(3, jnp.float8_e4m3fn)]},
            TypeError,
            r"params\['layer'\]\[0\] has dtype float8_e4m3fn.*leave this one out by",
        ),
        ({"w": optax.MaskedNode()}, TypeError, "optax.masked.*mask= of the optimizer"),
    ],
)
def test_parameters_that_cannot_move_are_named(name, params, error, sentence):
    with pytest.raises(error, match=sentence):
        REGISTRY[name].make().init(params)


@one_of_each
def test_no_parameters_at_all(name):
    tx = REGISTRY[name].make()
    with pytest.raises(ValueError, match="nothing to move; got no leaf"):
        tx.update(None, tx.init({}), {}, value_fn=losses, x=X, y=Y)


def test_narrow_floats_that_do_not_move_are_no_matter():
    params = {"w": jnp.ones(3), "q": jnp.ones(3, jnp.float8_e4m3fn)}
    tx = qiaso_jax.qiaso(4, 0.1, mask={"w": True, "q": False})
    updates, _ = tx.update(
        None,
        tx.init(params),
        params,
        value_fn=lambda p: jnp.sum(p["w"] * p["q"].astype(jnp.float32)),
    )
    after = optax.apply_updates(params, updates)
    chex.assert_trees_all_equal(after["q"], params["q"])
    assert np.all(after["w"] != 1)


@one_of_each
def test_optax_masked_is_refused_and_partition_too(name):
    entry = REGISTRY[name]
    tx = optax.masked(entry.make(), {"w": True, "b": False})
    with pytest.raises(TypeError, match="name the leaves that move by mask="):
        tx.init(PARAMS)
    labels = {"w": "ours", "b": "theirs"}
    tx = optax.partition({"ours": entry.make(), "theirs": optax.adam(0.1)}, labels)
    with pytest.raises(TypeError, match="name the leaves that move by mask="):
        tx.init(PARAMS)


@one_of_each
def test_optax_maps_what_is_like_parameters_in_a_state(name):
    tx = REGISTRY[name].make(optimizer=optax.adam(0.1))
    state = tx.init(PARAMS)
    mapped = optax.tree.map_params(tx, lambda x: x + 1, state)
    chex.assert_trees_all_equal_structs(mapped, state)
    mu = optax.tree.get(mapped, "mu")
    chex.assert_trees_all_equal(mu, jax.tree.map(jnp.ones_like, PARAMS))
    assert mapped.step == state.step


@pytest.mark.parametrize(
    ("updates", "sentence"),
    [
        (
            {"w": jnp.ones(2), "b": jnp.float32(0)},
            r"\(3,\) for params\['w'\]; got \(2,\)",
        ),
        ({"w": {"x": jnp.ones(3)}, "b": jnp.float32(0)}, r"for the leaf params\['w'\]"),
        ([jnp.ones(3), jnp.float32(0)], "updates must have the structure of params"),
    ],
)
def test_updates_that_do_not_fit_are_named(updates, sentence):
    tx = qiaso_jax.qiaso(4)
    with pytest.raises(ValueError, match=sentence):
        tx.update(
            updates, tx.init(PARAMS), PARAMS, value_fn=lambda p: jnp.sum(p["w"] ** 2)
        )


def test_a_missing_update_of_one_leaf_is_zero():
    tx = qiaso_jax.qiaso(4)
    state = tx.init(PARAMS)

    def update(given):
        return tx.update(given, state, PARAMS, value_fn=lambda p: jnp.sum(p["w"]))[0]

    given = {"w": jnp.ones(3), "b": None}
    chex.assert_trees_all_equal(update(given), update({**given, "b": jnp.float32(0)}))
