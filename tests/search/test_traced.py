"""What is compiled for a search serves every later one of the same operations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.xla_metadata import set_xla_metadata

from qiaso_jax import minimize
from qiaso_jax.search import method
from qiaso_jax.search.traced import traced

X = jnp.arange(1.0, 4.0)


def closing_over(scale, length=3, function=jnp.sin, zero=0.0, shift=(1.0, 2.0, 3.0)):
    """A function of new objects, whose arrays are ``scale`` times the same."""
    data = scale * jnp.arange(3.0)

    @jax.jit
    def inner(x):
        return x @ data

    @jax.custom_jvp
    def with_rule(x):
        return jnp.sum(x * data)

    with_rule.defjvp(lambda primals, tangents: (with_rule(*primals), 0.0))

    def fun(x):
        many, _ = jax.lax.scan(
            lambda carry, _: (carry + data[1], None), zero, None, length=length
        )
        chosen = jax.lax.cond(x[0] > 0, lambda: data[2], lambda: 0.0)
        fixed = jnp.sum(x * np.array(shift, np.float32))
        return inner(x) + with_rule(x) + many + chosen + fixed + function(x[0])

    return fun


def test_functions_of_the_same_operations_are_equal_whatever_they_close_over():
    first, constants = traced(closing_over(1.0), X)
    second, others = traced(closing_over(2.0), X)
    assert first == second
    assert hash(first) == hash(second)
    for own, scale in ((constants, 1.0), (others, 2.0)):
        expected = closing_over(scale)(X)
        np.testing.assert_allclose(first(own, X), expected, rtol=1e-6)
        np.testing.assert_allclose(second(own, X), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "fun",
    [
        closing_over(1.0, length=4),
        closing_over(1.0, function=jnp.cos),
        closing_over(1.0, zero=-0.0),
        lambda x: closing_over(1.0)(x)[None],
        lambda x: {"value": closing_over(1.0)(x)},
        lambda x: closing_over(1.0)(x).astype(jnp.bfloat16),
        lambda x: closing_over(1.0)(x) + 1,
    ],
)
def test_functions_of_other_operations_differ(fun):
    assert traced(fun, X)[0] != traced(closing_over(1.0), X)[0]


def test_so_do_those_of_another_configuration():
    def configured(value):
        def fun(x):
            with set_xla_metadata(tuned=value):
                return jnp.sum(2 * x)

        return traced(fun, X)[0]

    assert configured(1) == configured(1)
    assert configured(1) != configured(2)


def test_arrays_of_numpy_are_operands_too():
    other = closing_over(1.0, shift=(1.0, 2.0, 4.0))
    first, _ = traced(closing_over(1.0), X)
    second, constants = traced(other, X)
    assert first == second
    np.testing.assert_allclose(first(constants, X), other(X), rtol=1e-6)


def test_what_cannot_be_compared_is_equal_to_itself_alone():
    def prints(x):
        jax.debug.print("{}", x)
        return x

    def within_a_branch(x):
        inner = jax.jit(lambda x: x @ X)
        return inner(x) + jax.lax.cond(x[0] > 0, lambda: inner(x), lambda: 0.0)

    def asks_the_host(x):
        return jax.pure_callback(lambda x: x, x, x)

    for fun in (prints, within_a_branch, asks_the_host):
        first, second = traced(fun, X)[0], traced(fun, X)[0]
        assert first == first
        assert first != second


def test_a_second_call_compiles_nothing_and_sees_what_has_changed():
    data = {}

    def fun(x, shift):
        return jnp.sum((x - data["at"] - shift) ** 2)

    def search(scale, start, key=0, target=None):
        data["at"] = scale * jnp.arange(3.0)
        return minimize(
            fun,
            jnp.full(3, start),
            args=(jnp.asarray(scale),),
            bounds=(-9.0, 9.0),
            sigma=1.0,
            max_evaluations=1_000,
            key=key,
            target=target,
        )

    compiled = []
    search(1.0, 0.0)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event)
    )
    try:
        second = search(2.0, 1.0, key=3, target=-1.0)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not [event for event in compiled if "backend_compile" in event]
    np.testing.assert_allclose(second.x, [2, 4, 6], atol=1e-2)
    method.steps_of.cache_clear()
    chex.assert_trees_all_equal(second, search(2.0, 1.0, key=3, target=-1.0))
