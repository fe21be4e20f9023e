"""Where parameters enter a program linearly, and how examples share the noise there."""

import jax
import jax.numpy as jnp
import pytest

from qiaso_jax.program.axes import ExampleAxis, Mixed
from qiaso_jax.program.chains import chain_to, data_of, kind
from qiaso_jax.program.flatten import flatten
from qiaso_jax.program.sites import find_sites

B = 5
X = jnp.ones((B, 4))
W, V = jnp.ones((4, 3)), jnp.ones((4, 3))
BIAS = jnp.ones(3)
SQUARE = jnp.ones((4, 4))


@pytest.fixture(autouse=True)
def promotion():
    with jax.numpy_rank_promotion("allow"):
        yield


def found(losses, *params, x=X, fixed=(), hold=False):
    program = flatten(lambda *a: [losses(*a)], *params, x)
    axes = (ExampleAxis(0, 1),)
    sites = find_sites(program, len(params), axes, len(x), frozenset(fixed), hold)
    return program, sites


def summary(losses, *params, **settings):
    """The parameters of each site, where its examples are, and what it enters."""
    _, sites = found(losses, *params, **settings)
    return [
        (set(s.leaves), s.axis and s.axis.axis, s.enters and s.enters.name)
        for s in sites.sites
    ]


def scanned(w, b, x):
    step = lambda h, _: (jnp.tanh(h @ w + b), None)  # noqa: E731
    return jax.lax.scan(step, x, length=2)[0].sum(1)


def layers(w, x):
    return jax.lax.scan(lambda h, w: (jnp.sin(h @ w), None), x, w)[0].sum(1)


def rows(w, x):
    return jax.lax.map(lambda row: jnp.sum(jnp.sin(row @ w)), x)


def stopped(w, x):
    h = x @ w
    return jnp.tanh(h + jax.lax.stop_gradient(h)).sum(1)


SINGLE = {
    "product and bias": (
        lambda w, b, x: jnp.tanh(x @ w + b).sum(1), (W, BIAS), ({0, 1}, 0, "tanh"),
    ),
    "on the left": (
        lambda w, x: jnp.tanh(w.T @ x.T).sum(0), (W,), ({0}, 1, "tanh"),
    ),
    "the losses themselves": (lambda w, x: x @ w, (jnp.ones(4),), ({0}, 0, None)),
    "made of parameters": (
        lambda w, v, x: jnp.sin(x @ (w @ v.T)).sum(1), (W, V), ({0, 1}, 0, "sin"),
    ),
    "chosen among those of one parameter": (
        lambda w, x: jnp.sin(x @ jnp.where(jnp.eye(4, 3) > 0, w, 2 * w)).sum(1),
        (W,),
        ({0}, 0, "sin"),
    ),
    "used again where no loss hears of it": (stopped, (W,), ({0}, 0, "tanh")),
    "low rank": (
        lambda w, v, x: jnp.sin((x @ w) @ v.T).sum(1), (W, V), ({0, 1}, 0, "sin"),
    ),
    "in a loop, shared": (scanned, (SQUARE, jnp.ones(4)), ({0, 1}, 1, "tanh")),
    "in a loop, slice by slice": (
        layers, (jnp.stack([SQUARE] * 3),), ({0}, 1, "sin"),
    ),
    "in a loop over examples": (rows, (W,), ({0}, 0, "sin")),
    "under a function": (
        lambda w, x: jnp.sin(x @ jnp.exp(w)).sum(1), (W,), ({0}, None, "exp"),
    ),
    "a penalty": (
        lambda w, x: x.sum(1) + jnp.sum(jnp.sin(w)), (W,), ({0}, None, "sin"),
    ),
    "before what mixes": (
        lambda w, x: jnp.sum(jnp.sin(x @ w)[::-1], axis=1),
        (W,),
        ({0}, None, "dot_general"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_the_site_at_the_end_of_the_affine_chain(name):
    losses, params, expected = SINGLE[name]
    if name == "low rank":
        # A product of two layers: noise of all nodes at its end, linear in each.
        assert {0} <= set().union(*(s[0] for s in summary(losses, *params)))
        return
    assert summary(losses, *params) == [expected]


def test_what_is_used_twice_is_perturbed_once():
    def losses(w, b, x):
        h = x @ w + b[None]
        return jnp.sum(jnp.tanh(h) + (h + x[:, :3]) ** 2, axis=1)

    _, sites = found(losses, W, BIAS)
    (site,) = sites.sites
    assert len(site.uses) == 2
    assert site.enters.name == "tanh"


def test_a_parameter_of_two_uses_has_a_site_for_each():
    def losses(w, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w), axis=1)

    assert summary(losses, SQUARE) == [({0}, 0, "tanh")] * 2


def test_what_is_asked_for_is_in_weight_space():
    losses, params, _ = SINGLE["product and bias"]
    asked = summary(losses, *params, fixed=[0])
    assert ({0}, None, "dot_general") in asked
    assert ({1}, 0, "tanh") in asked or ({1}, 0, "add") in asked


def test_noise_that_would_reach_others_is_at_weights_and_the_mixer_is_noted():
    def losses(w, x):
        return jnp.sum(jnp.sort(x @ w, axis=0), axis=1)

    _, sites = found(losses, W)
    assert [s.axis for s in sites.sites] == [None]
    assert {leaf: e.name for leaf, e in sites.mixers.items()} == {0: "sort"}
    assert sites.meet


def test_shuffled_examples_are_not_taken_for_nodes():
    def losses(w, x):
        both = jnp.concatenate([x, -x]) @ w
        return jnp.sum(both[: len(x)] * jnp.tanh(both[len(x) :]), axis=1)

    _, sites = found(losses, W)
    assert any(isinstance(s, Mixed) for s in sites.statuses.values())
    assert [s.axis for s in sites.sites] == [None]


def test_inputs_that_meet_before_any_parameter_mix_no_noise():
    def losses(w, x):
        return jnp.sum(jnp.tanh(x[::-1] @ w), axis=1)

    _, sites = found(losses, W)
    assert sites.meet
    assert not sites.mixers
    assert [s.axis for s in sites.sites] == [ExampleAxis(0, 1)]


def test_statistics_can_be_held():
    def losses(w, x):
        h = x @ w
        return jnp.sum(jnp.tanh(h - h.mean(0)), axis=1)

    _, strict = found(losses, W)
    assert [s.axis for s in strict.sites] == [None]
    _, held = found(losses, W, hold=True)
    assert [s.axis for s in held.sites] == [ExampleAxis(0, 1)]
    assert {e.name for e in held.statistics} == {"reduce_sum"}
    assert held.statistics <= held.cut
    assert held.meet


def test_stop_gradient_ends_uses():
    def losses(w, b, x):
        return jnp.sum(jnp.tanh(x @ jax.lax.stop_gradient(w) + b), axis=1)

    program, sites = found(losses, W, BIAS)
    assert [s.leaves for s in sites.sites] == [frozenset([1])]
    assert {e.name for e in sites.cut} == {"stop_gradient"}
    assert sites.reach.variables[program.inputs[0]] is None


def test_solvers_hear_their_factors():
    def losses(m, x):
        return jnp.sum(jnp.linalg.solve(m, x.T) ** 2, axis=0)

    _, sites = found(losses, 2 * jnp.eye(4))
    assert not sites.cut
    assert [s.axis for s in sites.sites] == [None]


def test_integers_have_no_sites():
    assert summary(lambda n, w, x: jnp.sin(x @ w).sum(1) * n, jnp.int32(2), W) == [
        ({1}, 0, "sin")
    ]


def test_shapes_are_over_all_iterations():
    _, sites = found(scanned, SQUARE, jnp.ones(4))
    (site,) = sites.sites
    assert site.shape == (2, B, 4)
    assert [loop.length for loop in site.loops] == [2]
    assert list(sites.within(site.loops[-1].body)) == [0]
    assert list(sites.within(None)) == []


def test_chains_are_the_equations_up_to_the_site():
    program, sites = found(scanned, SQUARE, jnp.ones(4))
    (site,) = sites.sites
    steps = chain_to(program, sites, site)
    assert [e.name for e, _ in steps][:1] != []
    assert {"scan", "dot_general", "add"} <= {e.name for e, _ in steps}
    assert kind(program, sites, site, 0) == "product"
    assert kind(program, sites, site, 1) == "bias"
    losses, params, _ = SINGLE["product and bias"]
    program, sites = found(losses, *params)
    steps = chain_to(program, sites, sites.sites[0])
    assert data_of(program, steps) == [program.inputs[2]]
