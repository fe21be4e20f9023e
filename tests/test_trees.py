import chex
import jax
import jax.numpy as jnp
import numpy as np

from qiaso_jax._trees import copied, zeros_unless_given


def test_no_updates_are_zeros_where_there_are_numbers():
    params = {"w": jnp.ones(2, jnp.bfloat16), "x": 0.5, "n": np.arange(3), "name": "a"}
    zeros = zeros_unless_given(None, params)
    assert zeros.pop("name") is None
    chex.assert_trees_all_equal_shapes_and_dtypes(
        zeros,
        {"w": jnp.ones(2, jnp.bfloat16), "x": jnp.float32(1), "n": jnp.arange(3)},
    )
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(zeros))


def test_updates_that_are_given_stay():
    updates = {"w": jnp.ones(2)}
    assert zeros_unless_given(updates, {"w": jnp.zeros(2)}) is updates


def test_a_copy_shares_no_array():
    shared = jnp.arange(3.0)
    number, host = 0.5, np.ones(2)
    state = copied({"a": shared, "b": shared, "number": number, "host": host})
    places = {x.unsafe_buffer_pointer() for x in (shared, state["a"], state["b"])}
    assert len(places) == 3
    np.testing.assert_array_equal(state["a"], shared)
    assert state["number"] is number
    assert state["host"] is host
