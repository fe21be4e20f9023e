"""States: of their own buffers, of one optimizer and its parameters, of one version."""

from functools import partial
from pathlib import Path

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import PARAMS, REGISTRY, X, Y, every_optimizer, one_of_each

import qiaso_jax
from qiaso_jax import factorised_qiaso, node_qiaso, qiaso

STORED = Path(__file__).parent / "stored_states"


@pytest.mark.slow
@one_of_each
def test_a_fresh_state_can_be_donated(name):
    entry = REGISTRY[name]
    optimizer = optax.contrib.schedule_free_adamw(0.1)
    tx = optax.apply_if_finite(entry.make(optimizer=optimizer), 3)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, flag):
        def update(carry):
            params, state = carry
            updates, state = tx.update(
                optax.tree.zeros_like(params),
                state,
                params,
                value_fn=entry.value_fn,
                x=X,
                y=Y,
            )
            return optax.apply_updates(params, updates), state

        return jax.lax.cond(flag, update, lambda carry: carry, (params, state))

    params = jax.tree.map(jnp.copy, PARAMS)
    state = tx.init(params)
    for flag in (True, False, True):
        params, state = step(params, state, flag)
    assert state.inner_state.step == 2
    assert np.isfinite(params["w"]).all()


@every_optimizer
def test_every_leaf_of_a_new_state_is_an_array_of_its_own(name):
    params = jax.tree.map(jnp.copy, PARAMS)
    state = (
        REGISTRY[name]
        .make(optimizer=optax.contrib.schedule_free_adamw(0.1))
        .init(params)
    )
    pointers = [
        x.unsafe_buffer_pointer() for x in jax.tree.leaves((params, state)) if x.size
    ]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize(
    ("make", "other", "params", "sentence"),
    [
        (
            partial(qiaso, 16),
            partial(qiaso, 8),
            PARAMS,
            r"log_amplitudes must be float32\[16\], got",
        ),
        (
            partial(qiaso, 16, collapse_every=2),
            partial(qiaso, 8, collapse_every=2),
            PARAMS,
            r"state.candidates\['b'\] must be float32\[16\], got float32\[8\]",
        ),
        (partial(qiaso, collapse_every=2), qiaso, PARAMS, "got no array"),
        (
            partial(qiaso, optimizer=optax.adam(0.1)),
            partial(qiaso, optimizer=optax.adam(0.1)),
            {"w": jnp.ones(4), "b": jnp.float32(0)},
            r"opt_state\[0\]\.mu\['w'\] must be array\[3\], got array\[4\]",
        ),
        (
            partial(qiaso, optimizer=optax.adam(0.1)),
            partial(qiaso, optimizer=optax.sgd(0.1)),
            PARAMS,
            "opt_state.* got no array",
        ),
        (
            factorised_qiaso,
            factorised_qiaso,
            {"w": jnp.ones(4), "b": jnp.float32(0)},
            r"log_amplitudes must be float32\[4, 30\], got float32\[5, 30\]",
        ),
        (
            partial(node_qiaso, optimizer=optax.adam(0.1)),
            partial(node_qiaso, optimizer=optax.adam(0.1)),
            {"w": jnp.ones(4), "b": jnp.float32(0)},
            r"\['w'\] must be array\[3\], got array\[4\]",
        ),
        (qiaso, factorised_qiaso, PARAMS, "takes a QIASOState, got a FactorisedState"),
        (qiaso, lambda: optax.adam(0.1), PARAMS, "takes a QIASOState, got a tuple"),
    ],
)
def test_a_state_of_something_else_is_named(make, other, params, sentence):
    tx, state = make(), other().init(params)
    with pytest.raises(ValueError, match=f"state must come from init.*{sentence}"):
        tx.update(None, state, PARAMS, value_fn=lambda p: jnp.sum(p["w"] ** 2))


@pytest.mark.parametrize(
    "changed",
    [
        {"log_amplitudes": np.zeros(4, np.float16)},
        {"log_amplitudes": np.zeros(4, np.int32)},
        {"step": "0"},
        {"step": jnp.float32(0)},
        {"key": np.zeros(2, np.int64)},
        {"key": jax.random.key(0)},
        {"log_amplitudes": np.array([None] * 4)},
    ],
)
def test_a_state_of_other_dtypes_is_named(changed):
    tx = qiaso(4)
    state = tx.init(PARAMS)._replace(**changed)
    (name,) = changed
    with pytest.raises(ValueError, match=rf"state\.{name} must be .*, got"):
        tx.update(None, state, PARAMS, value_fn=lambda p: jnp.sum(p["w"] ** 2))


@one_of_each
def test_no_state_is_named(name):
    tx = REGISTRY[name].make()
    for state in (None, {}, (), tx.init(PARAMS)._asdict()):
        with pytest.raises(ValueError, match="state must come from init of the same"):
            tx.update(None, state, PARAMS, value_fn=lambda p: jnp.sum(p["w"] ** 2))


@pytest.mark.parametrize("name", ["qiaso", "factorised_qiaso", "node_qiaso"])
def test_a_stored_state_of_version_0_is_refused_and_not_misread(name):
    """Those in ``stored_states`` are by flax, of the commit d7c8563."""
    params = {"w": jnp.array([[0.3, 0.1, -0.2]]), "n": jnp.arange(2)}
    settings = {"num_candidates": 4, "sigma": 0.1, "optimizer": optax.adam(0.1)}
    if name != "node_qiaso":
        settings["collapse_every"] = 3
    tx = getattr(qiaso_jax, name)(**settings)
    stored = (STORED / f"{name}.msgpack").read_bytes()
    with pytest.raises(
        ValueError, match=r"field names of the state dict.* do not match"
    ):
        flax.serialization.from_bytes(tx.init(params), stored)
    # As read without a target, it is no state of ours.
    with pytest.raises(ValueError, match=r"state must come from init.*got a dict"):
        tx.update(
            None,
            flax.serialization.msgpack_restore(stored),
            params,
            value_fn=lambda p: jnp.sum(p["w"]),
        )


@pytest.mark.slow
@one_of_each
def test_a_state_of_this_version_is_read_by_flax_and_goes_on_the_same(name):
    entry = REGISTRY[name]
    tx = entry.make(optimizer=optax.adam(0.1))
    update = jax.jit(
        lambda s: tx.update(None, s, PARAMS, value_fn=entry.value_fn, x=X, y=Y)
    )
    _, state = update(tx.init(PARAMS))
    stored = flax.serialization.to_bytes(state)
    read = flax.serialization.from_bytes(tx.init(PARAMS), stored)
    chex.assert_trees_all_equal(update(read), update(state))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qiaso", "factorised, exact", "PAPER", "node"])
def test_at_the_end_of_int32(name):
    entry = REGISTRY[name]
    tx = entry.make()
    last = jnp.int32(2**31 - 1)
    state = tx.init(PARAMS)
    state = state._replace(
        step=last - 1,
        info=state.info._replace(num_skipped=last, num_flat=last),
    )

    def never(params, x, y):
        return entry.value_fn(params, x, y) * jnp.nan

    update = jax.jit(
        lambda s, f: tx.update(None, s, PARAMS, value_fn=f, x=X, y=Y),
        static_argnums=1,
    )
    for value_fn in (entry.value_fn, never, entry.value_fn, entry.value_fn):
        updates, after = update(state, value_fn)
        assert not np.array_equal(after.key, state.key)
        state = after
    assert state.step == last
    assert state.info.num_skipped == state.info.num_flat == last
    # It goes on moving there.
    assert np.isfinite(updates["w"]).all()
    assert np.any(updates["w"] != 0) or name == "PAPER"
