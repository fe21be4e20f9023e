"""Noise in a noisy pass: where it ends, what it is fed by, and what is evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.program.axes import ExampleAxis
from qiaso_jax.program.equations import bind, evaluate
from qiaso_jax.program.flatten import flatten
from qiaso_jax.program.passes import Noise, Reached, clean_operands, harvest, perturb
from qiaso_jax.program.sites import find_sites


@pytest.fixture(autouse=True)
def promotion():
    with jax.numpy_rank_promotion("allow"):
        yield


def with_noise(program, sites, feeds, clean, **more):
    reached = Reached(program, sites, range(len(sites.sites)))
    noise = Noise(feeds, lambda index, feed: feed)
    return perturb(program, reached, noise, {}, clean, **more)[0]


def pulled_back(program, sites, leaves, batch, cotangents):
    """What is known about v at all sites, as what is known about the parameters."""

    def clean_pass(leaves):
        indices = range(len(sites.sites))
        return harvest(program, sites, leaves, batch, lambda *_: None, indices, {})[0]

    return jax.vjp(clean_pass, leaves)[1](cotangents)[0]


# Noise that ends, by playing a function in plain Python: without noise first, when all
# that is stopped is written down, and then with noise, when it is read again.


class Recorder:
    def __init__(self):
        self.values, self.replays = [], False

    def stop(self, value):
        if not self.replays:
            self.values.append(value)
            return value
        return self.values.pop(0)

    def scan(self, step, carry, rows):
        found = []
        for row in rows:
            carry, out = step(carry, row)
            found.append(out)
        return carry, None if found[0] is None else jnp.stack(found)

    def cond(self, condition, first, second, *args):
        return first(*args) if condition else second(*args)

    def loop(self, condition, body, carry):
        while condition(carry):
            carry = body(carry)
        return carry


class Jax:
    stop = staticmethod(jax.lax.stop_gradient)
    scan = staticmethod(jax.lax.scan)
    cond = staticmethod(jax.lax.cond)
    loop = staticmethod(jax.lax.while_loop)


def gated(lax, h, w):
    return jnp.tanh(h @ w) * (1 + lax.stop(jnp.sin(h @ w)))


def in_scan(lax, w, x):
    def step(h, column):
        h = gated(lax, h + column[:, None], w)
        return h, h.sum(1) * lax.stop(h)[:, 0]

    final, history = lax.scan(step, x, x.T)
    return final.sum(1) + history.sum(0)


def in_cond(lax, w, x):
    h = x @ w
    h = lax.cond(x[0, 0] > -9, lambda h: gated(lax, h, w), lambda h: -h, h)
    return h.sum(1)


def in_while(lax, w, x):
    def body(carry):
        i, h = carry
        return i + 1, gated(lax, h, w)

    return lax.loop(lambda c: c[0] < 3, body, (0, x))[1].sum(1)


def scan_in_scan(lax, w, x):
    def outer(h, column):
        def inner(h, factor):
            return gated(lax, factor * h, w), None

        h, _ = lax.scan(inner, h + lax.stop(h @ w), jnp.arange(1.0, 3))
        return h + column[:, None], None

    return lax.scan(outer, x, x.T)[0].sum(1)


def cond_in_scan(lax, w, x):
    def step(h, i):
        h = lax.cond(i > 0, lambda h: gated(lax, h, w), lambda h: h @ w, h)
        return h, None

    return lax.scan(step, x, jnp.arange(3))[0].sum(1)


def while_in_scan(lax, w, x):
    def step(h, i):
        body = lambda c: (c[0] + 1, gated(lax, c[1], w))  # noqa: E731
        return lax.loop(lambda c: c[0] < 2 + i, body, (0, h))[1], None

    return lax.scan(step, x, jnp.arange(2))[0].sum(1)


def scan_in_while(lax, w, x):
    def body(carry):
        i, h = carry
        return i + 1, h + lax.scan(lambda h, _: (gated(lax, h, w), None), h, x)[0]

    return lax.loop(lambda c: c[0] < 2, body, (0, x))[1].sum(1)


def scan_in_cond(lax, w, x):
    def branch(h):
        return lax.scan(lambda h, _: (gated(lax, h, w), None), h, x)[0]

    return lax.cond(x[0, 0] > -9, branch, lambda h: h, x @ w).sum(1)


def cond_in_while(lax, w, x):
    def body(carry):
        i, h = carry
        h = lax.cond(i > 0, lambda h: gated(lax, h, w), lambda h: h @ w, h)
        return i + 1, h

    return lax.loop(lambda c: c[0] < 3, body, (0, x))[1].sum(1)


def straight_through(lax, w, x):
    def step(h, column):
        rounded = w + lax.stop(jnp.round(2 * w) / 2 - w)
        return jnp.tanh(h @ rounded + column[:, None]), None

    return lax.scan(step, x, x.T)[0].sum(1)


def local_losses(lax, w, x):
    def block(h, _):
        loss = jnp.sum(jnp.tanh(h @ w) ** 2, axis=1)
        return lax.stop(jnp.tanh(h @ w)), loss

    return lax.scan(block, x, x)[1].sum(0)


STOPPED = [
    in_scan,
    in_cond,
    in_while,
    scan_in_scan,
    cond_in_scan,
    while_in_scan,
    scan_in_while,
    scan_in_cond,
    cond_in_while,
    straight_through,
    local_losses,
]


@pytest.mark.parametrize("function", STOPPED, ids=lambda f: f.__name__)
def test_what_follows_stop_gradient_is_clean(function):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        w, x, far = (jnp.asarray(rng.normal(size=s)) for s in [(3, 3), (4, 3), (3, 3)])
        recorder = Recorder()
        clean = function(recorder, w, x)
        assert recorder.values
        recorder.replays = True
        expected = function(recorder, w + far, x)
        assert not recorder.values

        program = flatten(lambda w, x: [function(Jax, w, x)], w, x)
        sites = find_sites(program, 1, (ExampleAxis(0, 1),), 4, frozenset([0]))
        assert [s.variable for s in sites.sites] == [program.inputs[0]]

        @jax.jit
        def losses(w, x, far):
            values = evaluate(program, [w, x])
            return with_noise(program, sites, {0: far}, values)[0]

        np.testing.assert_allclose(losses(w, x, 0 * far), clean, 1e-12)
        np.testing.assert_allclose(losses(w, x, far), expected, 1e-9)
        # The test can fail: noise that goes on ends elsewhere.
        assert np.all(np.abs(function(Jax, w + far, x) - expected) > 1e-6)


def test_noise_within_a_loop_is_fed_time_by_time():
    rng = np.random.default_rng(0)
    w, u, x, z = (rng.normal(size=s) for s in [(3, 3), (2, 3), (5, 4, 2), (5, 4, 3)])

    def losses(w, u, x):
        def cell(h, row):
            h = jnp.tanh(h @ w + row @ u)
            return h, h**2

        final, history = jax.lax.scan(cell, jnp.zeros((4, 3)), x, reverse=True)
        return [final.sum(1) + history.sum((0, 2))]

    with jax.enable_x64(True):
        program = flatten(losses, w, u, x)
        sites = find_sites(program, 2, (ExampleAxis(1, 1),), 4)
        (site,) = sites.sites
        assert site.shape == (5, 4, 3)
        assert site.axis == ExampleAxis(1, 1)
        clean = evaluate(program, [w, u, x])
        (found,) = with_noise(program, sites, {0: z}, clean)
    h, expected = np.zeros((4, 3)), 0
    for t in reversed(range(5)):
        h = np.tanh(h @ w + x[t] @ u + z[t])
        expected = expected + np.sum(h**2, axis=1)
    np.testing.assert_allclose(found, expected + h.sum(1), 1e-9)


def test_only_what_noise_reaches_is_evaluated():
    def losses(w, x):
        features = jnp.sin(jnp.sin(x) @ jnp.ones((3, 3)))
        return [jnp.sum(jnp.tanh(features @ w), axis=1)]

    w, x = jnp.ones((3, 3)), jnp.ones((4, 3))
    program = flatten(losses, w, x)
    sites = find_sites(program, 1, (ExampleAxis(0, 1),), 4)
    clean = evaluate(program, [w, x])

    def noisy(feed):
        return with_noise(program, sites, {0: feed}, clean)[0]

    names = [e.primitive.name for e in jax.make_jaxpr(noisy)(jnp.ones((4, 3))).eqns]
    assert "tanh" in names
    assert not {"sin", "dot_general"} & set(names)


def test_something_else_may_take_the_place_of_a_loop():
    def losses(w, x):
        h = jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, length=3)[0]
        return [h.sum(1)]

    w, x = jnp.eye(3), jnp.ones((4, 3))
    program = flatten(losses, w, x)
    sites = find_sites(program, 1, (ExampleAxis(0, 1),), 4, frozenset([0]))
    clean = evaluate(program, [w, x])
    seen = []

    def through(equation, reached, noise, operands, values):
        seen.append(clean_operands(equation, values))
        return [jnp.full((4, 3), 7.0)]

    far = {0: jnp.ones((3, 3))}
    assert np.all(with_noise(program, sites, far, clean, through=through)[0] == 21)
    (operands,) = seen
    (loop,) = [e for e in program.equations if e.loop is not None]
    for ours, theirs in zip(
        bind(loop, operands), map(clean.read, loop.outputs), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_chains_alone_are_differentiated():
    # No derivative of the function is ever asked for.
    @jax.custom_jvp
    def guarded(x):
        return jnp.where(x > 0, 1.0, -1.0)

    @guarded.defjvp
    def _(primals, tangents):
        raise AssertionError("a derivative was asked for")

    def losses(w, v, x):
        return [jnp.sum(guarded(guarded(x @ w) @ v), axis=1)]

    args = jnp.ones((3, 2)), jnp.ones((2, 2)), jnp.ones((4, 3))
    program = flatten(losses, *args)
    sites = find_sites(program, 2, (ExampleAxis(0, 1),), 4)
    cotangents = {i: jnp.ones(s.shape) for i, s in enumerate(sites.sites)}
    w, v = pulled_back(program, sites, list(args[:2]), args[2:], cotangents)
    np.testing.assert_array_equal(w, np.full((3, 2), 4.0))
    np.testing.assert_array_equal(v, np.full((2, 2), 4.0))
