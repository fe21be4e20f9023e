"""Whole models, as users write them: parameters, a loss and its arguments.

Parameters are in double precision.
"""

import equinox as eqx
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import optax

MODELS = {}


def model(make):
    MODELS[make.__name__] = make
    return make


def normal(*shape):
    return jax.random.normal(jax.random.key(7), shape)


TOKENS = jnp.arange(12).reshape(2, 6)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(16, (3, 3), strides=2)(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.GroupNorm(4)(
            nn.Conv(32, (3, 3), feature_group_count=4, kernel_dilation=2)(x)
        )
        x = nn.ConvTranspose(8, (3, 3), strides=(2, 2))(x)
        x = nn.Dropout(0.3, deterministic=not train)(x)
        return nn.Dense(10)(x.reshape(x.shape[0], -1))


@model
def linen_convolutions():
    network, x = Network(), normal(4, 8, 8, 3)
    variables = network.init(jax.random.key(0), x, False)

    def loss(params, x):
        variables_ = variables | {"params": params}
        tested = network.apply(variables_, x, False)
        trained, _ = network.apply(
            variables_,
            x,
            True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        decay = 1e-3 * optax.tree.norm(params, squared=True)
        return jnp.mean(tested**2) + jnp.mean(jnp.sin(trained)) + decay

    return wide(variables["params"]), loss, {"x": x}


class Block(nn.Module):
    @nn.compact
    def __call__(self, h, _):
        mask = nn.make_causal_mask(jnp.ones(h.shape[:2]))
        normalised = nn.LayerNorm()(h)
        h += nn.MultiHeadDotProductAttention(4, qkv_features=16)(normalised, mask=mask)
        return h + nn.Dense(16)(nn.gelu(nn.Dense(32)(nn.LayerNorm()(h)))), None


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(40, 16)
        position = self.param("position", nn.initializers.normal(0.1), (1, 6, 16))
        blocks = nn.scan(
            nn.remat(Block),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        h, _ = blocks()(embed(tokens) + position, None)
        return embed.attend(nn.LayerNorm()(h))


@model
def linen_transformer():
    network = Transformer()
    params = network.init(jax.random.key(0), TOKENS)

    def loss(params, tokens):
        scores = network.apply(params, tokens)
        squares = sum(jnp.sum(jnp.square(w)) for w in jax.tree.leaves(params))
        return 1e-4 * squares + jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(scores, tokens)
        )

    return wide(params), loss, {"tokens": TOKENS}


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        # The first carry has the dtype of what it is carried through.
        more = {"param_dtype": x.dtype}
        h = nn.RNN(nn.GRUCell(12, **more))(x)
        h = nn.RNN(nn.OptimizedLSTMCell(12, **more))(h)
        ways = nn.RNN(nn.SimpleCell(12, **more)), nn.RNN(nn.SimpleCell(12, **more))
        return nn.WeightNorm(nn.Dense(8))(nn.Bidirectional(*ways)(h))


@model
def linen_recurrent():
    network, x = Recurrent(), normal(3, 5, 16)
    variables = network.init(jax.random.key(0), x)

    def loss(params, x):
        like = jax.tree.map(
            lambda v: v.astype(x.dtype) if v.dtype == "float64" else v,
            {k: v for k, v in variables.items() if k != "params"},
        )
        return jnp.mean(network.apply({**like, "params": params}, x) ** 2)

    return wide(variables["params"]), loss, {"x": x}


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 16, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.linear = nnx.Linear(16, 24, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 24, rngs=rngs, decode=False)
        self.embed = nnx.Embed(30, 24, param_dtype="float64", rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.heads = nnx.LinearGeneral(24, (4, 6), rngs=rngs)

    def __call__(self, x, tokens):
        h = self.linear(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))
        h = self.dropout(self.attention(self.embed(tokens) + h[:, None]))
        return self.embed.attend(h), self.heads(h)


@model
def nnx_modules():
    graph, params, rest = nnx.split(Nnx(nnx.Rngs(0)), nnx.Param, ...)
    rest = wide(rest)

    def loss(params, x, tokens):
        network = nnx.merge(graph, params, rest, copy=True)
        scores, heads = network(x, tokens)
        return jnp.mean(scores**2) + jnp.mean(jnp.abs(heads))

    return wide(params), loss, {"x": normal(2, 8, 8, 3), "tokens": TOKENS}


@model
def equinox_modules():
    keys = jax.random.split(jax.random.key(0), 7)
    network = {
        "conv": eqx.nn.Conv2d(3, 16, 3, key=keys[0]),
        "linear": eqx.nn.Linear(16, 24, key=keys[1]),
        "embed": eqx.nn.Embedding(30, 24, key=keys[2]),
        "attention": eqx.nn.MultiheadAttention(4, 24, key=keys[3]),
        "norm": eqx.nn.LayerNorm(24),
        "cell": eqx.nn.GRUCell(24, 24, key=keys[4]),
        "mlp": eqx.nn.MLP(24, 3, 20, 2, key=keys[5]),
    }
    params, static = eqx.partition(network, eqx.is_inexact_array)

    def loss(params, x, tokens):
        network = eqx.combine(params, static)

        def of_one(x, tokens):
            h = jax.nn.relu(network["conv"](x.transpose(2, 0, 1))).mean((1, 2))
            h = jax.vmap(network["embed"])(tokens) + network["linear"](h)
            h = jax.vmap(network["norm"])(network["attention"](h, h, h))

            def step(h, x):
                return network["cell"](x, h), None

            h, _ = jax.lax.scan(step, jnp.zeros(24, x.dtype), h)
            return network["mlp"](h)

        return jnp.mean(jax.vmap(of_one)(x, tokens) ** 2)

    return wide(params), loss, {"x": normal(2, 8, 8, 3), "tokens": TOKENS}


def wide(params):
    return jax.tree.map(
        lambda x: x.astype("float64") if x.dtype == "float32" else x, params
    )
