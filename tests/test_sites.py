"""The sites of node space: found in any function, and carrying all of its gradient."""

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.interpret import MIXED, Environment, evaluate, evaluate_rows, trace
from qiaso_jax.linear import by_example, example_map, from_examples, pull_back
from qiaso_jax.reactive import reactive_nodes
from qiaso_jax.sites import find_sites, perturbed_losses
from qiaso_jax.spaces import bind_model, lay_out, node_sites

B = 5


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape) / 2


def layer(params, x):
    return jnp.tanh(x @ params["w"] + params["b"])


LAYER = {"w": normal(0, 4, 3), "b": normal(1, 3)}
X = {"x": normal(2, B, 4)}


def summed(f):
    return lambda params, x: jnp.sum(f(params, x).reshape(x.shape[0], -1), axis=1)


@jax.custom_vjp
def cubed(x):
    return x**3


cubed.defvjp(lambda x: (cubed(x), x), lambda x, g: (3 * x**2 * g,))


def scanned(params, x):
    return jax.lax.scan(lambda h, p: (layer(p, h), None), x, params)[0]


def recurrent(params, x):
    def cell(h, column):
        return jnp.tanh(h @ params["h"] + column @ params["x"] + params["b"]), h

    final, history = jax.lax.scan(cell, jnp.zeros((x.shape[0], 3)), x.T[:, :, None])
    return final + history.sum(0)


def counted(params, x):
    # An unbounded loop, whose parameters are out of reach for node space.
    def body(carry):
        i, h = carry
        return i + 1, jnp.tanh(h @ params["inner"])

    _, h = jax.lax.while_loop(lambda c: c[0] < 3, body, (0, x))
    return h @ params["outer"]


def branched(params, x):
    return (
        jax.lax.cond(x[0, 0] > 0, lambda h: h @ params["inner"], lambda h: -h, x)
        @ (params["outer"])
    )


def convolutional(params, x):
    h = jax.lax.conv_general_dilated(
        x[:, :, None] * jnp.ones((1, 1, 2)),
        params["kernel"],
        (1,),
        "SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return jax.nn.relu(h + params["b"])


def attention(params, x):
    h = x.reshape(x.shape[0], 2, 2)
    q, k, v = jnp.moveaxis(jnp.einsum("btd,dce->btce", h, params["qkv"]), 2, 0)
    mix = jax.nn.softmax(jnp.einsum("bte,bse->bts", q, k))
    h = h + mix @ v @ params["out"]
    mean = h.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt(((h - mean) ** 2).mean(-1, keepdims=True) + 1e-3)
    return (h - mean) * scale * params["g"] + params["b"] + h


def embedded(params, x):
    tokens = jnp.arange(x.shape[0] * 2).reshape(-1, 2) % 7
    h = jnp.take(params["table"], tokens, axis=0) + params["position"]
    return jnp.sin(h) * params["table"][0] + x.sum(-1)[:, None, None]


ZOO = {
    "dense": (layer, LAYER),
    "jit": (jax.jit(layer), LAYER),
    "remat": (jax.checkpoint(layer), LAYER),
    "vmap": (jax.vmap(layer, in_axes=(None, 0)), LAYER),
    "vmapped_on_the_left": (
        lambda p, x: jax.vmap(lambda x: p["w"].T @ x + p["b"], out_axes=1)(x).T,
        LAYER,
    ),
    "transposed": (lambda p, x: jnp.sin((p["w"].T @ x.T).T - p["b"]), LAYER),
    "custom_vjp": (lambda p, x: cubed(x @ p["w"] + p["b"]), LAYER),
    "custom_jvp": (lambda p, x: jax.nn.silu(x @ p["w"]) * p["b"], LAYER),
    "weights_shared": (
        lambda p, x: layer(p, x) @ p["w"].T @ p["w"],
        LAYER,
    ),
    "penalty_in_the_loss": (
        lambda p, x: layer(p, x) + jnp.sum(p["w"] ** 2),
        LAYER,
    ),
    "gated": (lambda p, x: (x @ p["w"]) * jax.nn.sigmoid(x @ p["w"] + p["b"]), LAYER),
    "temperature": (
        lambda p, x: (x @ p["w"]) / jnp.exp(p["b"][0]) + p["b"],
        LAYER,
    ),
    "low_rank": (
        lambda p, x: jnp.tanh(x @ (p["u"] @ p["v"]) * 2.0),
        {"u": normal(0, 4, 2), "v": normal(1, 2, 3)},
    ),
    "reshaped_over_examples": (
        lambda p, x: jnp.tanh(x.reshape(-1, 2) @ p["w"]).reshape(x.shape[0], -1),
        {"w": normal(0, 2, 3)},
    ),
    "class_token": (
        lambda p, x: jnp.tanh(
            jnp.concatenate([jnp.tile(p["b"], (x.shape[0], 1)), x @ p["w"]], axis=1)
        ),
        LAYER,
    ),
    "scan_over_layers": (
        scanned,
        {"w": normal(0, 3, 4, 4), "b": normal(1, 3, 4)},
    ),
    "recurrent": (
        recurrent,
        {"h": normal(0, 3, 3), "x": normal(1, 1, 3), "b": normal(2, 3)},
    ),
    "while_loop": (counted, {"inner": normal(0, 4, 4), "outer": normal(1, 4, 2)}),
    "cond": (branched, {"inner": normal(0, 4, 4), "outer": normal(1, 4, 2)}),
    "convolution": (
        convolutional,
        {"kernel": normal(0, 3, 2, 3), "b": normal(1, 3)},
    ),
    "attention": (
        attention,
        {
            "qkv": normal(0, 2, 3, 2),
            "out": normal(1, 2, 2),
            "g": normal(2, 2),
            "b": normal(3, 2),
        },
    ),
    "embedding": (
        embedded,
        {"table": normal(0, 7, 3), "position": normal(1, 2, 3)},
    ),
}


def promoted(f):
    """A function that may add a bias of lower rank, as user code does."""

    def inner(params, x):
        with jax.numpy_rank_promotion("allow"):
            return f(params, x)

    return inner


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("space", ["auto", "weights"])
def test_sites_carry_the_whole_gradient(name, space):
    # Back-propagation to the noise, brought back from there to the parameters, has to
    # be back-propagation to the parameters.
    f, params = ZOO[name]
    value_fn = promoted(summed(f))
    model = bind_model(value_fn, params, X, None)
    if space == "auto" and name == "while_loop":
        spaces = [s.space for s in node_sites(value_fn, params, **X)]
        assert spaces == ["weights", "node"]
    program, _, _, sites, _ = lay_out(model, B, space)
    silence = [jnp.zeros(s.variable.aval.shape) for s in sites.sites]

    @jax.jit
    def check(leaves, batch):
        clean = evaluate(program, leaves, batch)
        losses_of = perturbed_losses(program, sites, clean)
        if name == "while_loop":  # JAX cannot differentiate it backwards
            cotangents = jax.jacfwd(lambda z: losses_of(z).mean())(silence)
        else:
            cotangents = jax.grad(lambda z: losses_of(z).mean())(silence)
        found = [jnp.zeros_like(leaf) for leaf in leaves]
        for site, cotangent in zip(sites.sites, cotangents, strict=True):
            for leaf in site.leaves:
                found[leaf] += pull_back(program, sites, site, leaf, cotangent, clean)
        return losses_of(silence), found

    losses, found = check(model.leaves, model.batch)
    np.testing.assert_allclose(losses, value_fn(params, **X), rtol=1e-5)
    differentiate = jax.jacfwd if name == "while_loop" else jax.grad
    expected = differentiate(lambda p: value_fn(p, **X).mean())(params)
    for ours, theirs in zip(found, jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["dense", "convolution", "attention", "embedding"])
def test_weights_of_every_example_move_as_if_they_were_its_own(name):
    f, params = ZOO[name]
    model = bind_model(promoted(summed(f)), params, X, None)
    program, _, single, sites, spaces = lay_out(model, B, "example")
    assert "example" in spaces

    @jax.jit
    def check(leaves, batch):
        pairs = []
        clean = evaluate(program, leaves, batch)
        for site, space in zip(sites.sites, spaces, strict=True):
            for leaf in site.leaves if space == "example" else ():
                own = normal(leaf, B, *leaves[leaf].shape)
                move = example_map(program, single, sites, site, leaf, clean, B)
                cotangent = normal(7, *site.variable.aval.shape)
                ours = by_example(move(own) * cotangent, site.axis, B)
                for n in range(B):
                    # The transpose of the map of weights that all examples share, at
                    # the nodes of one example alone.
                    alone = by_example(cotangent, site.axis, B)
                    mask = jnp.arange(B) == n
                    mask = mask.reshape(-1, *[1] * (alone.ndim - 1))
                    alone = from_examples(jnp.where(mask, alone, 0), site.axis)
                    back = pull_back(program, sites, site, leaf, alone, clean)
                    pairs.append((jnp.sum(ours[n]), jnp.vdot(own[n], back)))
        return jnp.array(pairs)

    ours, expected = check(model.leaves, model.batch).T
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    assert len(ours) >= B


def test_examples_are_followed_through_merged_axes():
    value = jnp.arange(24.0).reshape(2, 6, 2)
    where = trace(
        lambda p, b: b[0].reshape(-1, 2).sum(1).reshape(-1, 4).sum(1) + p[0],
        [jnp.zeros(())],
        [jnp.zeros((3, 8))],
        3,
        4,
    )[0].example_axes
    assert {axis.repeats for axis in where.values()} == {1, 4}
    split = by_example(value, where[next(iter(where))]._replace(axis=1, repeats=2), 3)
    assert split.shape == (3, 2, 2, 2)
    np.testing.assert_array_equal(split[1], value[:, 2:4])
    axis = where[next(iter(where))]._replace(axis=1, repeats=2)
    np.testing.assert_array_equal(from_examples(split, axis), value)


MIXERS = {
    "batch norm": lambda p, x: layer(p, (x - x.mean(0)) / x.std(0)),
    "running sum": lambda p, x: jnp.cumsum(layer(p, x), axis=0),
    "sorted": lambda p, x: jnp.sort(layer(p, x), axis=0),
    "gram": lambda p, x: layer(p, x) + (x @ x.T @ x)[:, :3],
    "position": lambda p, x: layer(p, x) * jnp.arange(len(x))[:, None],
    "constant position": lambda p, x: layer(p, x) * np.arange(len(x))[:, None],
    "number": lambda p, x: layer(p, x) / len(x),
    "constant number": lambda p, x: layer(p, x) / np.full(3, float(len(x))),
    "dropout": lambda p, x: (
        layer(p, x) * jax.random.bernoulli(jax.random.key(0), 0.5, (len(x), 3))
    ),
    "merged": lambda p, x: layer(p, jnp.repeat(x, 2, 0)).reshape(len(x), -1),
}


def layout_of_three(f, params):
    model = bind_model(promoted(summed(f)), params, X, ("x",))
    return model, lay_out(model, 3, "auto")


@pytest.mark.parametrize("name", [*ZOO, *MIXERS])
def test_rows_of_a_batch_are_as_if_evaluated_alone(name):
    f, params = ZOO[name] if name in ZOO else (MIXERS[name], LAYER)
    model, layout = layout_of_three(f, params)
    rows = jnp.array([4, 0, 4])
    values = evaluate(layout.whole, model.leaves, model.batch)
    ours = evaluate_rows(layout.program, layout.whole, values, rows)
    alone = evaluate(layout.program, model.leaves, [x[rows] for x in model.batch])
    assert ours.keys() == alone.keys()
    for variable, expected in alone.items():
        if not jnp.issubdtype(expected.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(ours[variable], expected, rtol=1e-5, atol=1e-6)


def test_rows_of_a_network_are_looked_up():
    model, layout = layout_of_three(lambda p, x: layer(p, x) @ p["w"].T, LAYER)

    @jax.make_jaxpr
    def losses(values, rows):
        values = Environment(zip(variables, values, strict=True))
        env = evaluate_rows(layout.program, layout.whole, values, rows)
        return env.read(layout.program.losses)

    values = evaluate(layout.whole, model.leaves, model.batch)
    variables = list(values)
    assert "dot_general" not in str(losses(list(values.values()), jnp.arange(3)))


def test_shuffled_examples_are_not_taken_for_nodes():
    def contrastive(params, x):
        both = jnp.concatenate([x, -x]) @ params["w"]
        return jnp.sum(both[: x.shape[0]] * jnp.tanh(both[x.shape[0] :]), axis=1)

    params = {"w": normal(0, 4, 3)}
    program = lay_out(bind_model(contrastive, params, X, None), B, "weights").program
    assert MIXED in program.example_axes.values()
    sites = find_sites(program, frozenset())
    assert [site.axis for site in sites.sites] == [None]
    with pytest.raises(ValueError, match="no parameter enters value_fn linearly"):
        node_sites(contrastive, params, **X)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(6)(x)))
        return nn.Dense(3)(nn.LayerNorm()(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.dense = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv(x)).reshape(x.shape[0], -1, 4)
        return self.dense(x + self.attention(x)).mean(1)


IMAGES = normal(3, B, 4, 4, 1)


def test_linen_module_is_listed():
    variables = Linen().init(jax.random.key(0), IMAGES, False)

    def value_fn(params, batch_stats, x):
        variables = {"params": params, "batch_stats": batch_stats}
        return jnp.sum(Linen().apply(variables, x, False) ** 2, axis=-1)

    found = node_sites(
        value_fn, variables["params"], batch_stats=variables["batch_stats"], x=IMAGES
    )
    kinds = {site.path: site.kind for site in found}
    assert kinds == {
        "Conv_0/kernel": "convolution",
        "Conv_0/bias": "bias",
        "Dense_0/kernel": "product",
        "Dense_0/bias": "bias",
        "BatchNorm_0/scale": "scaling",
        "BatchNorm_0/bias": "bias",
        "LayerNorm_0/scale": "scaling",
        "LayerNorm_0/bias": "bias",
        "Dense_1/kernel": "product",
        "Dense_1/bias": "bias",
    }
    # One position of every pooling window, at most.
    (conv,) = (site for site in found if site.path == "Conv_0/kernel")
    assert conv.nodes == 64
    assert 0 < conv.reactive <= 16
    # The affine chain of a dense layer goes on through stored statistics.
    sizes = {site.path: site.reactive for site in found}
    assert sizes["Dense_0/kernel"] == sizes["BatchNorm_0/bias"] < 6


def test_nnx_module_is_listed():
    graph, params, rest = nnx.split(Nnx(nnx.Rngs(0)), nnx.Param, ...)

    def value_fn(params, x):
        return jnp.sum(nnx.merge(graph, params, rest)(x) ** 2, axis=-1)

    found = node_sites(value_fn, params, x=IMAGES)
    assert {site.path.split("/")[0] for site in found} == {
        "attention",
        "conv",
        "dense",
    }
    assert len(found) == len(jax.tree.leaves(params))
    assert all(site.space != "weights" for site in found)


def brute_force(value_fn, params, kwargs, sigma):
    """Masks of the nodes whose own noise of ±σ changes a loss, one per site."""
    model = bind_model(value_fn, params, kwargs, None)
    program, _, _, sites, _ = lay_out(model, model.size, "node")

    @jax.jit
    def masks_of(leaves, batch):
        clean = evaluate(program, leaves, batch)
        losses_of = perturbed_losses(program, sites, clean)
        silence = [jnp.zeros(s.variable.aval.shape) for s in sites.sites]
        before = losses_of(silence)
        masks, ours = [], []
        for i, site in enumerate(sites.sites):

            def changes(noise, i=i):
                noise = [
                    *silence[:i],
                    noise.reshape(silence[i].shape),
                    *silence[i + 1 :],
                ]
                # More than rounding, far less than a reaction.
                return jnp.any(jnp.abs(losses_of(noise) - before) > 1e-6)

            alone = sigma * jnp.eye(silence[i].size)
            mask = jax.vmap(changes)(alone) | jax.vmap(changes)(-alone)
            masks.append(mask.reshape(silence[i].shape))
            found = reactive_nodes(program, site, clean, sigma)
            ours.append(jnp.ones_like(masks[i]) if found is None else found)
        return masks, ours

    return masks_of(model.leaves, model.batch)


def pooled(pool):
    def value_fn(params, x):
        h = jnp.tanh(pool(jax.nn.relu(x @ params["w"])))
        return jnp.sum(h.reshape(x.shape[0], -1), axis=1)

    return value_fn


def windows(size, stride, padding):
    return lambda h: jax.lax.reduce_window(
        h, -jnp.inf, jax.lax.max, (1, size, 1), (1, stride, 1), padding
    )


@pytest.mark.parametrize(
    ("pool", "sigma"),
    [
        (lambda h: h, 1e-3),
        (windows(2, 2, "VALID"), 1e-3),
        (windows(3, 2, "SAME"), 1e-3),
        (windows(3, 1, ((0, 0), (1, 1), (0, 0))), 1e-3),
        (windows(2, 3, "VALID"), 1e-3),
        (lambda h: h.reshape(h.shape[0], 4, 2, -1).max(axis=2), 1e-3),
        (lambda h: jax.nn.relu(h[:, :6].max(axis=1) - 0.1), 1e-3),
        (lambda h: jnp.where(h > 0.2, 1.0, 0.0), 0.1),
    ],
    ids=["relu", "2/2", "3/2 same", "3/1 padded", "2/3", "reshape", "global", "step"],
)
def test_reactive_nodes_are_those_that_react(pool, sigma):
    # The seed keeps all runners-up more than 2 σ behind, where finite steps and the
    # clean winners agree.
    masks, ours = brute_force(
        pooled(pool), {"w": normal(4, 2, 3)}, {"x": normal(11, 2, 8, 2)}, sigma
    )
    for mask, found in zip(masks, ours, strict=True):
        np.testing.assert_array_equal(found, mask)
    assert 0 < masks[0].mean() < 1


def test_what_is_used_twice_is_perturbed_once():
    def value_fn(params, x):
        h = x @ params["w"] + params["b"][None]
        return jnp.sum(jnp.tanh(h) + (h + x[:, :3]) ** 2, axis=1)

    program, _, _, sites, _ = lay_out(bind_model(value_fn, LAYER, X, None), B, "node")
    (site,) = sites.sites
    assert len(site.uses) == 2
    assert program.equations[min(site.uses)].primitive.name == "tanh"


def test_stop_gradient_leaves_parameters_out():
    def value_fn(params, x):
        frozen = jax.lax.stop_gradient(params["w"])
        return jnp.sum(jnp.tanh(x @ frozen + params["b"][None]) ** 2, axis=1)

    assert [s.path for s in node_sites(value_fn, LAYER, **X)] == ["b"]


def test_spaces_are_chosen_by_size_and_can_be_asked_for():
    def value_fn(params, x):
        h = jnp.tanh(convolutional({**params, "b": params["b"][None, None]}, x))
        return h.reshape(x.shape[0], -1) @ params["out"]

    params = {"kernel": normal(0, 3, 2, 3), "b": normal(1, 3), "out": normal(2, 96)}
    wide = {"x": normal(2, B, 32)}

    def spaces(space):
        return {
            s.path: s.space for s in node_sites(value_fn, params, space=space, **wide)
        }

    # 18 + 3 weights move 96 nodes; 96 weights move one.
    assert spaces("auto") == {"kernel": "example", "b": "example", "out": "node"}
    assert set(spaces("node").values()) == {"node"}
    assert set(spaces("weights").values()) == {"weights"}
    assert spaces({"out": "weights"})["out"] == "weights"
    assert spaces({"kernel": "node"})["b"] == "node"
    with pytest.raises(ValueError, match="both node and example space"):
        spaces({"kernel": "node", "b": "example"})
    with pytest.raises(ValueError, match=r"\['kernal'\], which are no parameters"):
        spaces({"kernal": "node"})
    with pytest.raises(ValueError, match="space must be one of"):
        spaces("nodes")
