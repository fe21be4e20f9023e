"""All that depends on the version of JAX, on the one that runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.program import compat


def equations(function, *args):
    return jax.make_jaxpr(function)(*args).jaxpr.eqns


@pytest.mark.parametrize(
    "name", ["sin", "scan", "cond", "while", "jit", "stop_gradient", "linear_solve"]
)
def test_primitives_are_found_by_name(name):
    assert compat.primitive(name) is not None


def test_primitives_are_those_of_jaxprs():
    (equation,) = equations(jnp.sin, 1.0)
    assert equation.primitive is compat.primitive("sin")
    assert compat.primitive("no such primitive") is None


@pytest.mark.parametrize("num_carry", [0, 1, 2])
@pytest.mark.parametrize("num_constants", [0, 1, 3])
def test_the_layout_of_a_scan(num_constants, num_carry):
    constants = [jnp.full((), i + 0.5) for i in range(num_constants)]
    carry = tuple(jnp.zeros(2) for _ in range(num_carry))

    def function(constants, carry, xs):
        def step(carry, x):
            total = sum(constants, x)
            return tuple(c + total for c in carry), total

        return jax.lax.scan(step, carry, xs)

    (equation,) = equations(function, constants, carry, jnp.ones(3))
    assert compat.scan_layout(equation.params) == (num_constants, num_carry)


@jax.custom_jvp
def with_jvp(x):
    return jnp.sin(x)


with_jvp.defjvp(lambda p, t: (jnp.sin(p[0]), t[0]))


@jax.custom_vjp
def with_vjp(x):
    return jnp.sin(x)


with_vjp.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g,))

CALLS = {
    "jit": jax.jit(jnp.sin),
    "jit with a constant": jax.jit(lambda x: jnp.sin(x) + np.arange(3.0)),
    "remat": jax.checkpoint(jnp.sin),
    "custom_jvp": with_jvp,
    "custom_vjp": with_vjp,
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_opened(name):
    (equation,) = equations(CALLS[name], jnp.ones(3))
    jaxpr, values = compat.opened(compat.called(equation))
    assert len(jaxpr.constvars) == len(values)
    assert "sin" in {e.primitive.name for e in jaxpr.eqns} | {
        e.primitive.name
        for call in jaxpr.eqns
        if compat.called(call) is not None
        for e in compat.opened(compat.called(call))[0].eqns
    }


def test_what_is_no_call_is_not_opened():
    (equation,) = equations(jnp.sin, 1.0)
    assert compat.called(equation) is None
    (loop,) = equations(lambda x: jax.lax.map(jnp.sin, x), jnp.ones(3))
    assert compat.called(loop) is None


BOUND = {
    "one result": (jnp.sin, [jnp.ones(3)]),
    "several results": (lambda x: jax.lax.top_k(x, 2), [jnp.arange(4.0)]),
    "parameters": (lambda x: jnp.sum(x, axis=1), [jnp.ones((2, 3))]),
    "branches": (
        lambda i, x: jax.lax.switch(i, [jnp.sin, jnp.cos, jnp.tan], x),
        [jnp.int32(1), jnp.ones(3)],
    ),
    "loop": (
        lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x),
        [jnp.ones(3)],
    ),
    "solve": (
        lambda b: jax.lax.custom_linear_solve(
            lambda x: 2 * x, b, lambda matvec, b: b / 2, symmetric=True
        ),
        [jnp.ones(3)],
    ),
    "callback": (
        lambda x: jax.pure_callback(
            np.sin, jax.ShapeDtypeStruct((3,), jnp.float32), x, vmap_method="sequential"
        ),
        [jnp.ones(3)],
    ),
}


@pytest.mark.parametrize("name", BOUND)
def test_single_equations_are_evaluated(name):
    function, args = BOUND[name]
    expected = jax.tree.leaves(function(*args))
    equation = equations(function, *args)[-1]
    operands = [
        atom.val
        if compat.is_literal(atom)
        else args[len(args) - len(equation.invars) + i]
        for i, atom in enumerate(equation.invars)
    ]
    found = compat.bind(equation.primitive, equation.params, operands)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, 1e-6)


def test_the_line_is_the_users():
    def function(x):
        return jnp.sin(x)

    (equation,) = equations(function, 1.0)
    line = function.__code__.co_firstlineno + 1
    assert compat.source_line(equation) == f"test_compat.py:{line}"
