"""A flattened program is the function, on every JAX, and its loops stay loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from qiaso_jax.program.equations import (
    Environment,
    Literal,
    Variable,
    bind,
    evaluate,
    run,
    scan,
)
from qiaso_jax.program.flatten import flatten

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32) / 2
TABLE = np.arange(4.0, dtype=np.float32)


@jax.custom_vjp
def cubed(x):
    return x**3


cubed.defvjp(lambda x: (cubed(x), x), lambda x, g: (3 * x**2 * g,))


@jax.custom_jvp
def guarded(x):
    return jnp.where(x > 0, x, 0.0)


@guarded.defjvp
def _(primals, tangents):
    raise AssertionError("a derivative was asked for")


def layer(h, w):
    return jnp.tanh(h @ w)


def scanned(x, w, **settings):
    def step(carry, column):
        carry = jnp.tanh(carry + column[:, None]) @ w
        return carry, carry.sum(1)

    return jax.lax.scan(step, x, x.T, **settings)


def unchanged(x, w):
    # The weights are carried along, beside what changes and what is swapped.
    def step(carry, row):
        w, a, b, c, scale = carry
        return (w, jnp.sin(a @ w) * scale, c, b, scale), (w[0], row)

    return jax.lax.scan(step, (w, x, x + 1, x - 1, 2.0), x)


def hoisted(x, w):
    def step(carry, row):
        normalised = w / jnp.sqrt(jnp.sum(w**2)) + TABLE
        return jnp.sin(carry @ normalised + row), normalised

    return jax.lax.scan(step, x[0], x)


def nested(x, w):
    def outer(carry, row):
        def inner(c, v):
            mixed = jnp.sin(w) * row[0]
            return jnp.tanh(c @ mixed + v), (c, mixed.sum())

        final, (history, sums) = jax.lax.scan(inner, carry, row, reverse=True)
        return final, history.sum(0) + sums.sum()

    return jax.lax.scan(outer, x[1], x)


def remembered(x, w):
    return jax.lax.scan(jax.checkpoint(lambda h, _: (layer(h, w), h)), x, length=3)


def branched(x, w):
    return jax.lax.cond(x[0, 0] > 0, layer, lambda h, w: -h, x, w)


def switched(x, w):
    which = (x[0] > 0).sum()
    return jax.lax.switch(which, [layer, lambda h, w: h, lambda h, w: h * TABLE], x, w)


def until(x, w):
    return jax.lax.while_loop(
        lambda c: (c[0] < 5) & (jnp.abs(c[1]).sum() < 1e3 * TABLE.sum()),
        lambda c: (c[0] + 1, layer(c[1], w)),
        (0, x),
    )


def counted(x, w):
    return jax.lax.fori_loop(0, 4, lambda i, h: layer(h, w) + i, x)


def counted_to(x, w):
    return jax.lax.fori_loop(0, (x > 0).sum(), lambda i, h: layer(h, w) + i, x)


def branches_in_loops(x, w):
    def step(h, row):
        h = jax.lax.cond(row.sum() > 0, layer, lambda h, w: h + row, h, w)
        return jax.lax.while_loop(lambda c: c.sum() < 2, lambda c: c + 1, h), h

    return jax.lax.scan(step, x, x)


@jax.jit
def called_twice(x):
    return jnp.sin(x) + 1


FUNCTIONS = {
    "plain": lambda x, w: jnp.tanh(x @ w) + TABLE,
    "jit": jax.jit(lambda x, w: (layer(x, w), w)),
    "jit within jit": jax.jit(lambda x, w: jax.jit(layer)(jax.jit(layer)(x, w), w)),
    "called twice": lambda x, w: called_twice(called_twice(x)) + called_twice(w)[:3],
    "remat": jax.checkpoint(layer),
    "custom_jvp": lambda x, w: (jax.nn.silu(x @ w), jax.nn.relu(x)),
    "custom_vjp": lambda x, w: cubed(x @ w),
    "no derivative": lambda x, w: guarded(x @ w),
    "several results": lambda x, w: jnp.linalg.qr(w),
    "an argument as a result": lambda x, w: (x, w, 1.0),
    "a constant as a result": lambda x, w: jnp.ones(3),
    "unused": lambda x, w: (jnp.sin(x), jnp.cos(w))[0],
    "barrier": lambda x, w: jax.lax.optimization_barrier((x, w @ w)),
    "named": lambda x, w: checkpoint_name(x @ w, "product"),
    "stopped": lambda x, w: jax.lax.stop_gradient(x) @ w,
    "scan": scanned,
    "scan backwards": lambda x, w: scanned(x, w, reverse=True),
    "scan, unrolled by four": lambda x, w: scanned(x, w, unroll=4),
    "scan of no length": lambda x, w: jax.lax.scan(
        lambda c, v: (c + v, c), x[0], x[:0]
    ),
    "scan without a carry": lambda x, w: jax.lax.map(lambda row: row @ w, x),
    "scan without slices": lambda x, w: jax.lax.scan(
        lambda c, _: (layer(c, w), None), x, length=3
    ),
    "unchanged carries": unchanged,
    "hoisted": hoisted,
    "nested": nested,
    "remat of a body": remembered,
    "cond": branched,
    "switch": switched,
    "while": until,
    "fori_loop": counted,
    "fori_loop to a number": counted_to,
    "branches in loops": branches_in_loops,
    "vmap": jax.vmap(lambda row, w: branched(row[None], w), (0, None)),
    "solve": lambda x, w: jnp.linalg.solve(jnp.eye(4) + 0.1 * w, x.T),
    "random": lambda x, w: jax.random.normal(jax.random.key(3), x.shape) + x,
    "gradient": lambda x, w: jax.grad(lambda w: layer(x, w).sum())(w),
    "gradient of a loop": lambda x, w: jax.grad(lambda w: scanned(x, w)[1].sum())(w),
}


def as_list(function):
    return lambda *args: jax.tree.leaves(function(*args))


def equations_of(program):
    for equation in program.equations:
        yield equation
        loop = equation.loop
        for inner in equation.bodies if loop is None else (loop.body,):
            yield from equations_of(inner)


@pytest.fixture(autouse=True)
def promotion():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_flattened_program_is_the_function(name):
    function = as_list(FUNCTIONS[name])
    program = flatten(function, X, W)
    found, expected = jax.jit(lambda *a: run(program, a)), jax.jit(function)
    for args in [(X, W), (-X, W.T), (2 * X[::-1], W - 0.1)]:
        for ours, theirs in zip(found(*args), expected(*args), strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, 1e-5, 1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_flattened_program_is_well_formed(name):
    program = flatten(as_list(FUNCTIONS[name]), X, W)

    def check(program):
        known = {*program.inputs, *program.constants}
        for equation in program.equations:
            assert {a for a in equation.inputs if isinstance(a, Variable)} <= known
            assert not known & set(equation.outputs)
            known.update(equation.outputs)
            if equation.loop is not None:
                check_loop(equation)
            for body in equation.bodies:
                check(body)
            assert equation.name not in ("jit", "custom_jvp_call", "custom_vjp_call")
        assert {a for a in program.outputs if isinstance(a, Variable)} <= known

    def check_loop(equation):
        loop = equation.loop
        body, carry = loop.body, slice(loop.num_constants, None)
        check(body)
        assert len(body.inputs) == len(equation.inputs)
        assert len(body.outputs) == len(equation.outputs)
        for before, after in zip(
            body.inputs[carry][: loop.num_carry],
            body.outputs[: loop.num_carry],
            strict=True,
        ):
            assert before is not after  # else it would be a constant
            assert before.aval.shape == after.aval.shape
        used = {a for e in body.equations for a in e.inputs} | set(body.outputs)
        assert set(body.inputs[: loop.num_constants]) <= used
        for inner in body.equations:
            names = {a for a in inner.inputs if isinstance(a, Variable)}
            # What constants alone make has been moved out.
            assert not names or not names <= set(body.inputs[: loop.num_constants])

    check(program)


def recurrent(length):
    def losses(w, series):
        def cell(h, row):
            return jax.lax.scan(lambda c, v: (jnp.tanh(c + v), None), h @ w, row)[0], h

        final, history = jax.lax.scan(cell, jnp.zeros(4), series)
        return [final, history]

    return flatten(losses, W, jnp.ones((length, 3, 4)))


def test_no_scan_is_unrolled():
    short, long = recurrent(4), recurrent(400)
    names = [e.name for e in equations_of(short)]
    assert names == [e.name for e in equations_of(long)]
    assert names.count("scan") == 2
    (loop,) = [e.loop for e in long.equations if e.loop is not None]
    assert loop.length == 400


def test_what_constants_alone_make_is_moved_out_of_loops():
    program = flatten(as_list(nested), X, W)
    # sin(w) is made once, and not in any of the iterations of both loops.
    assert "sin" in [e.name for e in program.equations]
    (loop,) = [e.loop for e in program.equations if e.loop is not None]
    assert "sin" not in [e.name for e in equations_of(loop.body)]
    program = flatten(as_list(hoisted), X, W)
    (equation,) = [e for e in program.equations if e.loop is not None]
    assert [e.name for e in equation.loop.body.equations].count("div") == 0


def test_carries_that_do_not_change_are_constants():
    program = flatten(as_list(unchanged), X, W)
    (equation,) = [e for e in program.equations if e.loop is not None]
    assert equation.loop.num_carry == 3  # of five
    assert program.inputs[1] in program.outputs


def test_what_the_results_do_not_need_is_left_out():
    program = flatten(as_list(FUNCTIONS["unused"]), X, W)
    assert [e.name for e in program.equations] == ["sin"]


def test_integers_are_known_before_anything_runs():
    def rows(x, w):
        n = jnp.arange(3) * 2 + 1
        return [x[n // 1 % 3], jnp.where(n > 4, n, 0)]

    program = flatten(rows, X, W)
    values = evaluate(program, [X, W])
    assert program.known
    for variable, value in program.known.items():
        np.testing.assert_array_equal(values[variable], value)
        assert value.dtype == variable.aval.dtype


def test_environments_are_trees_and_read_literals():
    a, b = Variable(None), Variable(None)
    env = Environment({a: jnp.ones(2), b: 3.0})
    double = jax.tree.map(lambda x: 2 * x, env)
    assert double[b] == 6.0
    assert double.read(Literal(5, None)) == 5
    assert jax.jit(lambda e: e)(env)[b] == 3.0


def test_a_loop_takes_another_body():
    program = flatten(as_list(scanned), X, W)
    (equation,) = [e for e in program.equations if e.loop is not None]
    values = evaluate(program, [X, W])
    operands = list(map(values.read, equation.inputs))

    def silent(constants, carry, slices):
        return [*carry, jnp.zeros(3)]

    final, history = scan(equation.loop, silent, operands)
    np.testing.assert_array_equal(final, X)
    np.testing.assert_array_equal(history, np.zeros((4, 3)))
    for ours, theirs in zip(bind(equation, operands), scanned(X, W), strict=True):
        np.testing.assert_allclose(ours, theirs, 1e-5, 1e-6)


def test_lines_are_those_of_the_user():
    def losses(x, w):
        h = jnp.tanh(x @ w)
        return [jax.nn.softmax(h)]

    first = losses.__code__.co_firstlineno
    program = flatten(losses, X, W)
    lines = {e.name: e.source for e in program.equations}
    assert lines["dot_general"] == f"test_flatten.py:{first + 1}"
    assert lines["tanh"] == f"test_flatten.py:{first + 1}"
    # Of a library's own operations, the line that called the library.
    assert lines["exp"] == f"test_flatten.py:{first + 2}"


def test_lines_of_what_is_traced_once_are_those_of_the_call():
    program = flatten(as_list(FUNCTIONS["called twice"]), X, W)
    assert all(e.source.startswith("test_flatten.py:") for e in program.equations)
