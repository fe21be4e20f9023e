"""Node space on functions of every make: where its noise is, and what it estimates.

The functions are in ``architectures.py``. Nothing here knows of the analysis behind
``node_qiaso``: what is compared is what users see, with ``jax.grad`` and with NumPy.
"""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from architectures import ARCHITECTURES, OWN

import qiaso_jax
from qiaso_jax.node_space.examples import bind_model
from qiaso_jax.node_space.spaces import analyse
from qiaso_jax.program.equations import evaluate
from qiaso_jax.program.passes import Noise, Reached, perturb
from qiaso_jax.program.rows import by_example, from_examples

REFUSED = [n for n, a in ARCHITECTURES.items() if a.spaces == "refused"]
TAKEN = [n for n in ARCHITECTURES if n not in REFUSED]
SMOOTH = [n for n in TAKEN if not ARCHITECTURES[n].discontinuous]


# Where the noise is.


def sites_of(a, **settings):
    settings = {**a.settings, **settings}
    return qiaso_jax.node_sites(a.value_fn, a.params, **settings, **a.batch)


def spaces_of(sites):
    found = {}
    for site in sites:
        found.setdefault(site.path, set()).add(site.space)
    return found


def assert_spaces(sites, expected):
    """Every site is in a space that is expected, and every expected space has one."""
    found = spaces_of(sites)
    assert found.keys() == expected.keys()
    for path, wanted in expected.items():
        wanted = [{s} if isinstance(s, str) else set(s) for s in wanted]
        message = f"{path}: found {found[path]}, expected {wanted}"
        assert found[path] <= set().union(*wanted), message
        assert all(found[path] & each for each in wanted), message


def names_one_of(paths):
    """A pattern for a sentence in which one of the paths is a word."""
    return rf"(?<!\w)({'|'.join(map(re.escape, paths))})(?!\w)"


def refusal(a):
    """What ``space="node"`` is answered with, or ``None`` where it is taken."""
    try:
        sites_of(a, space="node")
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKEN)
def test_spaces(name):
    a = ARCHITECTURES[name]
    sites = sites_of(a)
    assert_spaces(sites, a.spaces)
    for site in sites:
        if site.space == "weights":
            assert a.why in site.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKEN)
def test_node_space_alone(name):
    a = ARCHITECTURES[name]
    in_weights = [path for path, s in a.spaces.items() if "weights" in s]
    if a.node_spaces == "refused":
        with pytest.raises(ValueError, match=names_one_of(in_weights)):
            sites_of(a, space="node")
        return
    if a.node_spaces == "either":
        said = refusal(a)
        assert said is None or re.search(names_one_of(in_weights), said)
        return
    expected = a.spaces if a.node_spaces is None else a.node_spaces
    expected = {
        path: ("node",) if spaces == (OWN,) else spaces
        for path, spaces in expected.items()
    }
    assert_spaces(sites_of(a, space="node"), expected)


@pytest.mark.parametrize("space", ["auto", "node"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name, space):
    a = ARCHITECTURES[name]
    with pytest.raises(ValueError, match=names_one_of(["kernel"])):
        sites_of(a, space=space)


# What it estimates, where there is a gradient.


def split(params):
    """The leaves that can move, and the function that puts them back."""
    leaves, treedef = jax.tree.flatten(params)
    moves = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

    def merge(moving):
        rows = iter(moving)
        merged = [
            next(rows) if m else leaf for m, leaf in zip(moves, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, merged)

    return [leaf for m, leaf in zip(moves, leaves, strict=True) if m], merge


def gradient(a):
    leaves, merge = split(a.params)
    differentiate = jax.jacfwd if a.forward_mode else jax.grad
    mean = jax.jit(differentiate(lambda p: a.value_fn(merge(p), **a.batch).mean()))
    return [np.asarray(g, np.float64) for g in mean(leaves)]


def estimates(a, num_estimates=None, **settings):
    """The pseudo-gradients of as many steps from the same parameters, per leaf."""
    tx = qiaso_jax.node_qiaso(
        16,
        a.sigma,
        **{
            "optimizer": optax.sgd(1.0),
            "examples": 1.0,
            **a.settings,
            **settings,
        },
    )

    def step(state, _):
        updates, state = tx.update(
            None, state, a.params, value_fn=a.value_fn, **a.batch
        )
        return state, [-leaf for leaf in split(updates)[0]]

    steps = jax.jit(
        lambda state: jax.lax.scan(step, state, length=num_estimates or a.estimates)[1]
    )
    return [np.asarray(leaf, np.float64) for leaf in steps(tx.init(a.params))]


FINITE_DIFFERENCE = 0.01
"""What a difference over ±σ may be off by, relative to the norm of the gradient."""


def residual_bound(found):
    """A bound on ‖ē − g‖² that an unbiased ē exceeds once in 1.2 million.

    In expectation it is tr(C)/R; a sum of squares of Gaussian variables of covariance
    C/R exceeds this plus 2‖C‖_F √t/R + 2‖C‖₂ t/R with a probability below e⁻ᵗ (Laurent
    and Massart, Annals of Statistics 2000, lemma 1). Here t = 14.
    """
    centred = found - found.mean(axis=0)
    # The Gram matrix has the eigenvalues of the covariance, all those that are not 0.
    wide = found.shape[1] > found.shape[0]
    product = centred @ centred.T if wide else centred.T @ centred
    eigenvalues = np.linalg.eigvalsh(product) / (len(found) - 1)
    t = 14
    bound = eigenvalues.sum() + 2 * np.sqrt(t) * np.linalg.norm(eigenvalues)
    return (bound + 2 * t * eigenvalues.max()) / len(found)


def assert_unbiased(found, expected):
    """The mean of ``found`` is ``expected``, both with an entry per leaf.

    Its projection to six standard errors, which chance exceeds once in 5·10⁸, and the
    residual, of all leaves and of each, to ``residual_bound``.
    """
    found = [leaf.reshape(len(leaf), -1) for leaf in found]
    expected = [leaf.ravel() for leaf in expected]
    everything, g = np.concatenate(found, axis=1), np.concatenate(expected)
    square = g @ g
    projections = everything @ g / square
    error = projections.std(ddof=1) / np.sqrt(len(projections))
    # The test can fail: an estimate of nothing, or of twice as much, is found out.
    assert error < 0.15
    assert abs(projections.mean() - 1) < 6 * error + FINITE_DIFFERENCE
    off = FINITE_DIFFERENCE**2 * square
    for estimate, truth in zip([everything, *found], [g, *expected], strict=True):
        residual = np.sum((estimate.mean(axis=0) - truth) ** 2)
        assert residual < residual_bound(estimate) + off
    assert residual_bound(everything) < 0.5 * square


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH)
def test_unbiased(name):
    """A right estimate fails here for one seed in 3000: 100 functions, 3 leaves each.

    The gradient itself is from JAX, and knows of no sites.
    """
    a = ARCHITECTURES[name]
    assert_unbiased(estimates(a), gradient(a))


SETTINGS = [
    ("dense", "node", 0.5),
    ("custom_vjp", "node", 0.5),
    ("convolution", "node", 0.5),
    ("attention", "node", 0.5),
    ("gru_8", "node", 0.5),
    ("tied_embeddings", "node", 0.5),
    ("mixture_with_top_k_gathered", "node", 0.5),
    ("local_losses", "node", 0.5),
    ("split_kernel", "node", 0.5),
    ("indexed_logits", "node", 0.5),
    ("mapped_over_examples", "node", 0.5),
    ("vmapped_losses", "node", 0.5),
    ("scan_over_layers", "node", 0.5),
    ("layer_norm", "node", 0.5),
    ("convolution", "example", 0.5),
    ("gru_8", "example", 0.5),
    ("dense", "weights", 0.5),
    ("gru_8", "weights", 0.5),
    ("local_losses", "weights", 0.5),
    ("hundredths_straight_through", "weights", 0.5),
    ("reversed_batch", "weights", 1.0),
    ("batch_norm_in_training", "weights", 1.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "space", "examples"), SETTINGS)
def test_unbiased_in_every_space(name, space, examples):
    """As above, of candidates for half of the examples: one seed in 10,000."""
    a = ARCHITECTURES[name]
    found = estimates(a, 2 * a.estimates, space=space, examples=examples)
    assert_unbiased(found, gradient(a))


# What it estimates, where there is none.


def as_step(h):
    return np.where(h > 0, 1.0, -1.0)


def two_layers(activation, loss, quantised=lambda w: w, scale=1.0):
    """A twin in NumPy: the loss of one example, and what goes into its layers."""

    def twin(p, x, y, noise):
        width = p["b"].size
        h = activation(x @ quantised(p["w"]) + p["b"] + noise[:width])
        out = scale * h @ quantised(p["out"]) + p["c"] + noise[width:]
        return loss(out, y), {"w": x, "out": scale * h}

    return twin


def fit(out, _):
    return np.mean((out - 0.5) ** 2)


def not_behind(scores, y):
    return np.sum(scores > scores[y] - 1e-6) - 1.0


TWINS = {
    "step_activations": two_layers(as_step, fit),
    "binary_network": two_layers(as_step, fit, np.sign, 0.5),
    "stepped_loss": two_layers(np.tanh, not_behind),
}


def exact_expectation(twin, params, x, y, sigma):
    """The mean over all sign patterns of all nodes, in loops and double precision."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    width, nodes = p["b"].size, p["b"].size + p["c"].size
    assert nodes <= 10
    patterns = [np.array(z) for z in itertools.product([1.0, -1.0], repeat=nodes)]
    expected = {name: np.zeros_like(value) for name, value in p.items()}
    for n in range(len(x)):
        _, inputs = twin(p, x[n], y[n], np.zeros(nodes))
        d = np.zeros(nodes)
        for z in patterns:
            ahead = twin(p, x[n], y[n], sigma * z)[0]
            behind = twin(p, x[n], y[n], -sigma * z)[0]
            d += z * (ahead - behind) / (2 * sigma) / len(patterns)
        expected["w"] += np.outer(inputs["w"], d[:width]) / len(x)
        expected["b"] += d[:width] / len(x)
        expected["out"] += np.outer(inputs["out"], d[width:]) / len(x)
        expected["c"] += d[width:] / len(x)
    return expected


@pytest.mark.parametrize("name", TWINS)
def test_discontinuous_by_brute_force(name):
    """At six standard errors and 35 entries each: one seed in ten million."""
    a = ARCHITECTURES[name]
    x = np.asarray(a.batch["x"], np.float64)
    y = np.asarray(a.batch.get("y", np.zeros(len(x), int)))
    expected = exact_expectation(TWINS[name], a.params, x, y, a.sigma)
    found = estimates(a, 2000, space="node", reactive_only=False)
    names = jax.tree.leaves({key: key for key in a.params})
    for key, estimate in zip(names, found, strict=True):
        error = estimate.std(axis=0) / np.sqrt(len(estimate))
        difference = np.abs(estimate.mean(axis=0) - expected[key])
        assert np.all(difference < 6 * error + 1e-5), key
        # The test can fail: a parameter that stays where it is is found out.
        assert np.any(np.abs(expected[key]) > 6 * error + 1e-5), key


# Independent of all analysis: whose losses the nodes of one example reach.


def losses_with_one_example_moved(a, space):
    """The clean losses, and those with the nodes of example n moved, in row n."""
    model = bind_model(a.value_fn, a.params, a.batch, a.settings.get("batch_argnames"))
    analysis = analyse(model, space)
    sites = analysis.sites
    inner = [i for i, site in enumerate(sites.sites) if site.axis is not None]
    reached = Reached(analysis.program, sites, inner)

    @jax.jit
    def probe(leaves, batch):
        clean = evaluate(analysis.program, [*leaves, *batch])

        def moved(n):
            feeds = {}
            for i in inner:
                site = sites.sites[i]
                z = jax.random.normal(jax.random.key(i), site.shape) / 3
                rows = by_example(z, site.axis, model.size)
                alone = (jnp.arange(model.size) == n).astype(z.dtype)
                alone = alone.reshape(-1, *[1] * (rows.ndim - 1))
                feed = from_examples(rows * alone, site.axis)
                feeds[i] = feed.astype(site.variable.aval.dtype)
            noise = Noise(feeds, lambda i, feed: feed)
            return perturb(analysis.program, reached, noise, {}, clean)[0][0]

        losses = clean.read(analysis.program.outputs[0])
        return losses, jax.lax.map(moved, jnp.arange(model.size))

    return len(inner), *map(np.asarray, probe(model.leaves, model.batch))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "space"),
    [(name, "auto") for name in TAKEN] + [("batch_norm_in_training", "node")],
)
def test_nodes_of_an_example_reach_no_other_loss(name, space):
    a = ARCHITECTURES[name]
    num_sites, clean, moved = losses_with_one_example_moved(a, space)
    changed = np.abs(moved - clean[None]) > 1e-5 * (1 + np.abs(clean[None]))
    others = ~np.eye(len(clean), dtype=bool)
    assert not np.any(changed & others)
    # The test can fail: what is moved is heard of.
    assert num_sites == 0 or np.any(changed)
