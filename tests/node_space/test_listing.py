"""The list of sites: where noise is, and the sentence that says why."""

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import pytest

from qiaso_jax.node_space.examples import bind_model
from qiaso_jax.node_space.listing import node_sites
from qiaso_jax.node_space.spaces import analyse

B = 5


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape) / 2


LAYER = {"w": normal(0, 4, 3), "b": normal(1, 3)}
X = {"x": normal(2, B, 4)}


def convolutional(params, x):
    h = jax.lax.conv_general_dilated(
        x[:, :, None] * jnp.ones((1, 1, 2)),
        params["kernel"],
        (1,),
        "SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return jax.nn.relu(h + params["b"])


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


def test_what_is_used_twice_is_perturbed_once():
    def value_fn(params, x):
        h = x @ params["w"] + params["b"][None]
        return jnp.sum(jnp.tanh(h) + (h + x[:, :3]) ** 2, axis=1)

    (site,) = analyse(bind_model(value_fn, LAYER, X, None), "node").sites.sites
    assert len(site.uses) == 2
    assert {owner.name for owner, _ in site.uses} == {"tanh", "add"}


def test_stop_gradient_leaves_parameters_out():
    def value_fn(params, x):
        frozen = jax.lax.stop_gradient(params["w"])
        return jnp.sum(jnp.tanh(x @ frozen + params["b"][None]) ** 2, axis=1)

    bias, kernel = node_sites(value_fn, LAYER, **X)
    assert (bias.path, bias.space, bias.reason) == ("b", "node", "")
    assert (kernel.path, kernel.space) == ("w", "fixed")
    assert kernel.reason == "what it does to the losses is under stop_gradient"


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


def test_reasons_name_the_operation_and_the_line():
    def value_fn(params, x):
        h = jnp.tanh(x @ params["mixed"])[::-1]
        h = h @ jnp.round(params["rounded"])
        return jnp.sum(h * jnp.exp(params["unused"] * 0 + 1)[None], axis=1)

    line = value_fn.__code__.co_firstlineno
    params = {
        "mixed": normal(0, 4, 3),
        "rounded": normal(1, 3, 2),
        "unused": jnp.ones(2),
        "count": jnp.arange(3),
        "never": jnp.ones(3),
    }
    reasons = {s.path: s.reason for s in node_sites(value_fn, params, **X)}
    assert reasons["mixed"].startswith(f"rev (test_listing.py:{line + 1}) brings")
    assert reasons["rounded"] == (
        f"it enters round (test_listing.py:{line + 2}), which is not linear in it"
    )
    assert reasons["count"] == "it is of dtype int32"
    assert reasons["never"] == "the losses do not depend on it"


def test_batch_statistics_are_said():
    def value_fn(params, x):
        h = x @ params["w"]
        return jnp.sum(jnp.tanh(h - h.mean(0, keepdims=True)), axis=1)

    params = {"w": LAYER["w"]}
    (site,) = node_sites(value_fn, params, **X)
    assert site.space == "weights"
    assert "examples meet in batch statistics, reduce_sum (test_" in site.reason
    (site,) = node_sites(value_fn, params, space="node", **X)
    assert site.space == "node"
    assert site.reason.startswith("batch statistics are held at their clean values: ")


def test_a_cap_is_reported():
    # Weights of 1e-4 cannot move nodes by 0.02 without growing beyond themselves.
    def value_fn(params, x):
        return jnp.sum(x @ jnp.tanh(params["w"]), axis=1)

    def capped(size):
        params = {"w": size * jnp.ones((4, 3))}
        return node_sites(value_fn, params, **X)[0].capped

    assert capped(1e-4)
    assert not capped(1.0)


def test_a_threshold_that_is_compared_with_data_gets_noise():
    def value_fn(params, x):
        return jnp.mean(jnp.where(x > params["threshold"][None], 1.0, -1.0), axis=1)

    (site,) = node_sites(value_fn, {"threshold": jnp.full(4, 0.3)}, **X)
    assert site.space == "weights"
    assert site.reason.startswith("it enters ")


def test_leaves_that_a_mask_leaves_out_are_listed_as_fixed():
    params = {"w": jnp.ones(3), "v": jnp.ones(3), "n": jnp.arange(2)}

    def value_fn(params, x, mask):
        return mask * (x @ params["w"]) * params["v"][0]

    sites = node_sites(
        value_fn,
        params,
        leaf_mask={"w": True, "v": False, "n": True},
        x=jnp.eye(3),
        mask=jnp.ones(3),
    )
    assert [(s.path, s.space, s.reason) for s in sites] == [
        ("w", "node", ""),
        ("n", "fixed", "it is of dtype int32"),
        ("v", "fixed", "mask leaves it out"),
    ]
