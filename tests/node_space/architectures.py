"""Small functions of every make, and where node space is expected to put their noise.

A function is registered under its own name. All parameters are expected to have noise
of their own for every example (``OWN``), unless ``spaces`` says otherwise.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import flax.nnx as nnx
import haiku as hk
import jax
import jax.numpy as jnp
import optax

OWN = frozenset({"node", "example"})
"""Noise of every example for itself: which of the two is a matter of sizes."""

ANY = OWN | {"weights"}

WEIGHTS = ("weights",)
FIXED = ("fixed",)

Spaces = str | Mapping[str, tuple[str | frozenset[str], ...]]


class Architecture(NamedTuple):
    """A function, its arguments, and what is expected of it.

    Attributes:
      value_fn: ``(params, **batch) -> [B]``.
      params: a pytree, at most a hundred weights or so.
      batch: keyword arguments of ``value_fn``.
      spaces: by the path of a parameter, the spaces of its sites under "auto", or sets
        of spaces that are as good; every one has to occur. "refused" for a function
        that neither "auto" nor "node" takes.
      node_spaces: what ``space="node"`` gives. ``None``: ``OWN`` where "auto" has that;
        "refused": a sentence that names a parameter of weight space; "either": both
        are right; or a mapping as ``spaces``.
      settings: of ``node_qiaso`` and ``node_sites``.
      why: a word in the reason of the sites in weight space.
      sigma: the spread of the noise at which a finite difference is a derivative.
      estimates: how many are averaged.
      discontinuous: whether ``jax.grad`` is not what the estimate is of.
      forward_mode: whether JAX can differentiate it forwards only.
    """

    value_fn: Callable[..., jax.Array]
    params: Any
    batch: Mapping[str, Any]
    spaces: Spaces
    node_spaces: str | Spaces | None = None
    settings: Mapping[str, Any] = {}
    why: str = ""
    sigma: float = 1e-3
    estimates: int = 400
    discontinuous: bool = False
    forward_mode: bool = False


ARCHITECTURES: dict[str, Architecture] = {}


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape) / 2


def paths(params):
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
    ]


B = 6
# Inputs have a mean, so that what the examples say adds up.
X = {"x": 0.5 + normal(2, B, 4)}
LABELLED = {**X, "y": jnp.array([0, 1, 0, 2, 0, 1])}
SEQUENCES = {"x": 0.5 + normal(3, B, 3, 2)}
SERIES = {"x": 0.5 + normal(4, B, 8, 1)}
LONG_SERIES = {"x": 0.5 + normal(5, B, 200, 1)}
TOKENS = {"tokens": jnp.arange(3 * B).reshape(B, 3) % 5}


def register(name, value_fn, params, batch, spaces=None, **fields):
    """Adds a function; ``spaces`` names those parameters that are not ``OWN``."""
    if spaces != "refused":
        spaces = {**dict.fromkeys(paths(params), (OWN,)), **(spaces or {})}
    assert name not in ARCHITECTURES
    ARCHITECTURES[name] = Architecture(value_fn, params, batch, spaces, **fields)


def architecture(params, batch=X, **fields):
    def registered(value_fn):
        register(value_fn.__name__, value_fn, params, batch, **fields)
        return value_fn

    return registered


def promoted(f):
    """A function that may add a bias of lower rank, as user code does."""

    @functools.wraps(f)
    def inner(params, **batch):
        with jax.numpy_rank_promotion("allow"):
            return f(params, **batch)

    return inner


def fit(h):
    """A smooth loss per example, the same way for all, so that gradients add up."""
    return jnp.mean((h.reshape(h.shape[0], -1) - 0.5) ** 2, axis=1)


def cross_entropy(scores, y):
    return optax.softmax_cross_entropy_with_integer_labels(scores, y)


# The first zoo: the loss of each is the sum of its outputs.


def summed(f):
    return lambda params, x: jnp.sum(f(params, x).reshape(x.shape[0], -1), axis=1)


def layer(params, x):
    return jnp.tanh(x @ params["w"] + params["b"])


LAYER = {"w": normal(0, 4, 3), "b": normal(1, 3)}


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


INNER = {"inner": normal(0, 4, 4), "outer": normal(1, 4, 2)}

# What is expected of a parameter that has nodes, and weight space besides.
BOTH = (OWN, "weights")

ZOO = {
    "dense": (layer, LAYER, {"spaces": {"w": ("node",), "b": ("node",)}}),
    "jit": (jax.jit(layer), LAYER, {}),
    "remat": (jax.checkpoint(layer), LAYER, {}),
    "vmap": (jax.vmap(layer, in_axes=(None, 0)), LAYER, {}),
    "vmapped_on_the_left": (
        lambda p, x: jax.vmap(lambda x: p["w"].T @ x + p["b"], out_axes=1)(x).T,
        LAYER,
        {},
    ),
    "transposed": (lambda p, x: jnp.sin((p["w"].T @ x.T).T - p["b"]), LAYER, {}),
    "custom_vjp": (lambda p, x: cubed(x @ p["w"] + p["b"]), LAYER, {}),
    "custom_jvp": (lambda p, x: jax.nn.silu(x @ p["w"]) * p["b"], LAYER, {}),
    "weights_shared": (lambda p, x: layer(p, x) @ p["w"].T @ p["w"], LAYER, {}),
    "penalty_in_the_loss": (
        lambda p, x: layer(p, x) + jnp.sum(p["w"] ** 2),
        LAYER,
        {"spaces": {"w": BOTH}, "node_spaces": "either"},
    ),
    "gated": (
        lambda p, x: (x @ p["w"]) * jax.nn.sigmoid(x @ p["w"] + p["b"]),
        LAYER,
        {},
    ),
    "temperature": (
        lambda p, x: (x @ p["w"]) / jnp.exp(p["b"][0]) + p["b"],
        LAYER,
        {"spaces": {"b": BOTH}, "node_spaces": "either", "why": "exp"},
    ),
    "low_rank": (
        lambda p, x: jnp.tanh(x @ (p["u"] @ p["v"]) * 2.0),
        {"u": normal(0, 4, 2), "v": normal(1, 2, 3)},
        {},
    ),
    "reshaped_over_examples": (
        lambda p, x: jnp.tanh(x.reshape(-1, 2) @ p["w"]).reshape(x.shape[0], -1),
        {"w": normal(0, 2, 3)},
        {},
    ),
    "class_token": (
        lambda p, x: jnp.tanh(
            jnp.concatenate([jnp.tile(p["b"], (x.shape[0], 1)), x @ p["w"]], axis=1)
        ),
        LAYER,
        {},
    ),
    "scan_over_layers": (scanned, {"w": normal(0, 3, 4, 4), "b": normal(1, 3, 4)}, {}),
    "recurrent": (
        recurrent,
        {"h": normal(0, 3, 3), "x": normal(1, 1, 3), "b": normal(2, 3)},
        {},
    ),
    "while_loop": (
        counted,
        INNER,
        {
            "spaces": {"inner": WEIGHTS},
            "node_spaces": "refused",
            "why": "while",
            "forward_mode": True,
        },
    ),
    "cond": (
        branched,
        INNER,
        {"spaces": {"inner": WEIGHTS}, "node_spaces": "refused", "why": "cond"},
    ),
    "convolution": (
        convolutional,
        {"kernel": normal(0, 3, 2, 3), "b": normal(1, 3)},
        {},
    ),
    "attention": (
        attention,
        {
            "qkv": normal(0, 2, 3, 2),
            "out": normal(1, 2, 2),
            "g": normal(2, 2),
            "b": normal(3, 2),
        },
        {},
    ),
    "embedding": (
        embedded,
        {"table": normal(0, 7, 3), "position": normal(1, 2, 3)},
        {},
    ),
}

for _name, (_f, _params, _fields) in ZOO.items():
    register(_name, promoted(summed(_f)), _params, X, **_fields)


# Attention and embeddings.


@architecture(
    {c: normal(i, 4, 2, 2) for i, c in enumerate("qkv")} | {"o": normal(3, 2, 2, 4)}
)
def multi_head_attention(params, x):
    h = x[:, None, :] * jnp.array([1.0, -0.5, 0.3])[None, :, None]
    q, k, v = (jnp.einsum("btd,dhe->bhte", h, params[c]) for c in "qkv")
    mix = jax.nn.softmax(jnp.einsum("bhte,bhse->bhts", q, k))
    mixed = jnp.einsum("bhts,bhse->bhte", mix, v)
    return fit(h + jnp.einsum("bhte,hed->btd", mixed, params["o"]))


@architecture({"qkv": 2 * normal(0, 2, 6), "o": normal(1, 2, 2)}, SEQUENCES)
def causal_attention(params, x):
    q, k, v = jnp.split(x @ params["qkv"], 3, axis=-1)
    mask = jnp.tril(jnp.ones((3, 3), bool))[None]
    scores = jnp.where(mask, q @ k.swapaxes(1, 2), -1e9)
    return fit(x + jax.nn.softmax(scores) @ v @ params["o"])


@architecture({"table": normal(0, 5, 3), "w": normal(1, 3, 3)}, TOKENS)
def tied_embeddings(params, tokens):
    h = jnp.tanh(params["table"][tokens].mean(1) @ params["w"])
    return cross_entropy(h @ params["table"].T, tokens[:, -1] % 2)


@architecture(
    {"table": normal(0, 5, 2), "position": normal(1, 3, 2), "w": normal(2, 2, 2)},
    TOKENS,
)
def positional_parameters(params, tokens):
    h = jnp.take(params["table"], tokens, axis=0) + params["position"][None]
    return fit(jnp.tanh(h @ params["w"]))


@architecture({"token": normal(0, 2), "w": normal(1, 2, 2)}, SEQUENCES)
def class_token_in_a_sequence(params, x):
    token = jnp.broadcast_to(params["token"][None, None], (x.shape[0], 1, 2))
    h = jnp.concatenate([token, x], axis=1)
    mix = jax.nn.softmax(h @ h.swapaxes(1, 2))
    return fit((mix @ h @ params["w"])[:, 0])


# Recurrences: the batch comes first, and is transposed for the scan.

LSTM = {"w": normal(0, 3, 8), "b": normal(1, 8)}
GRU = {"x": normal(0, 1, 6), "h": normal(1, 2, 6), "b": normal(2, 6)}


def lstm_cell(params, carry, x):
    h, c = carry
    gates = jnp.concatenate([x, h], axis=1) @ params["w"] + params["b"][None]
    i, f, g, o = jnp.split(gates, 4, axis=1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def gru_cell(params, h, x):
    of_x = jnp.split(x @ params["x"] + params["b"][None], 3, axis=1)
    of_h = jnp.split(h @ params["h"], 3, axis=1)
    update = jax.nn.sigmoid(of_x[0] + of_h[0])
    reset = jax.nn.sigmoid(of_x[1] + of_h[1])
    new = jnp.tanh(of_x[2] + reset * of_h[2])
    h = update * h + (1 - update) * new
    return h, h


def zeros(x):
    return jnp.zeros((x.shape[0], 2))


def time_first(x):
    return jnp.swapaxes(x, 0, 1)


def recurrence(cell, start, params, x):
    """The loss of a recurrence, on its last state and on the mean of all."""
    history = jax.lax.scan(functools.partial(cell, params), start, x)[1]
    return fit(history[-1]) + fit(history.mean(0))


@architecture(LSTM, SERIES)
def lstm_8(params, x):
    return recurrence(lstm_cell, (zeros(x), zeros(x)), params, time_first(x))


@architecture(GRU, SERIES)
def gru_8(params, x):
    return recurrence(gru_cell, zeros(x), params, time_first(x))


register("lstm_200", lstm_8, LSTM, LONG_SERIES, sigma=3e-4)
register("gru_200", gru_8, GRU, LONG_SERIES, sigma=3e-4)


@architecture(
    GRU,
    {"x": time_first(SERIES["x"])},
    settings={"batch_argnames": {"x": 1}},
)
def gru_time_major(params, x):
    return recurrence(gru_cell, jnp.zeros((x.shape[1], 2)), params, x)


@architecture({"forth": GRU, "back": GRU, "w": normal(3, 4, 2)}, SERIES)
def bidirectional(params, x):
    def run(params, reverse):
        cell = functools.partial(gru_cell, params)
        return jax.lax.scan(cell, zeros(x), time_first(x), reverse=reverse)[1]

    both = [run(params["forth"], False), run(params["back"], True)]
    return fit(time_first(jnp.concatenate(both, axis=2) @ params["w"]))


@architecture({"x": normal(0, 2, 2, 2), "h": normal(1, 2, 2, 2)}, SEQUENCES)
def nested_scans(params, x):
    def over_layers(series, p):
        def over_time(h, column):
            h = jnp.tanh(column @ p["x"] + h @ p["h"])
            return h, h

        series = jax.lax.scan(over_time, zeros(x), series)[1]
        return series, series[-1]

    series, lasts = jax.lax.scan(over_layers, time_first(x), params)
    return fit(series[-1]) + fit(lasts[0])


@architecture(GRU, SERIES)
def remat_of_a_scan_body(params, x):
    cell = jax.checkpoint(gru_cell)
    return recurrence(cell, zeros(x), params, time_first(x))


@architecture(LAYER, LABELLED)
def mapped_over_examples(params, x, y):
    def one(example):
        x, y = example
        scores = jnp.tanh(x @ params["w"] + params["b"])
        return jax.nn.logsumexp(scores) - scores[y]

    return jax.lax.map(one, (x, y))


@architecture({"w": normal(0, 4, 4), "b": normal(1, 4)})
def fori_loop(params, x):
    def body(_, h):
        return jnp.tanh(h @ params["w"] + params["b"][None])

    return fit(jax.lax.fori_loop(0, 3, body, x))


@architecture({"w": normal(0, 4, 4), "out": normal(1, 4, 2)})
def params_carried_unchanged(params, x):
    def body(carry, _):
        h, p = carry
        return (jnp.tanh(h @ p["w"]), p), None

    (h, p), _ = jax.lax.scan(body, (x, params), length=3)
    return fit(h @ p["out"])


# Convolutions and normalisations.


def convolve(x, kernel, **settings):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        settings.pop("strides", (1,)),
        "SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
        **settings,
    )


CONV = {"kernel": normal(0, 3, 2, 2), "out": 2 * normal(1, 2, 2)}


@architecture(
    {"kernel": normal(0, 3, 1, 4), "out": normal(1, 4, 2)},
    SEQUENCES,
)
def depthwise_convolution(params, x):
    h = convolve(x, params["kernel"], feature_group_count=2)
    return fit(jnp.tanh(h) @ params["out"])


@architecture(CONV, SEQUENCES)
def transposed_convolution(params, x):
    h = jax.lax.conv_transpose(
        x, params["kernel"], (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return fit(jnp.tanh(h) @ params["out"])


@architecture(CONV, {"x": 0.5 + normal(3, B, 5, 2)})
def dilated_convolution(params, x):
    h = convolve(x, params["kernel"], rhs_dilation=(2,))
    return fit(jnp.tanh(h) @ params["out"])


@architecture({"kernel": normal(0, 1, 2, 3), "out": normal(1, 3, 2)}, SEQUENCES)
def pointwise_convolution(params, x):
    return fit(jnp.tanh(convolve(x, params["kernel"])) @ params["out"])


@architecture(
    {"kernel": normal(0, 3, 2, 3), "bias": normal(1, 3), "out": normal(2, 6, 2)},
    {"x": 0.5 + normal(3, B, 4, 2)},
)
def maximum_pooling(params, x):
    h = convolve(x, params["kernel"]) + params["bias"][None, None]
    h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 1), (1, 2, 1), "VALID")
    return fit(jnp.tanh(h).reshape(x.shape[0], -1) @ params["out"])


NORMALISED = {
    "w": normal(0, 4, 4),
    "scale": 1 + normal(1, 4),
    "offset": normal(2, 4),
    "out": normal(3, 4, 2),
}


def standardised(h, axis):
    mean = h.mean(axis, keepdims=True)
    return (h - mean) * jax.lax.rsqrt(h.var(axis, keepdims=True) + 1e-2)


def after_norm(params, h):
    h = h * params["scale"][None] + params["offset"][None]
    return fit(jnp.tanh(h) @ params["out"])


@architecture(NORMALISED)
def group_norm(params, x):
    h = (x @ params["w"]).reshape(x.shape[0], 2, 2)
    return after_norm(params, standardised(h, -1).reshape(x.shape[0], 4))


@architecture(NORMALISED)
def layer_norm(params, x):
    return after_norm(params, standardised(x @ params["w"], -1))


@architecture({k: v for k, v in NORMALISED.items() if k != "offset"})
def rms_norm(params, x):
    h = x @ params["w"]
    h = h * jax.lax.rsqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-2)
    return fit(jnp.tanh(h * params["scale"][None]) @ params["out"])


@architecture(
    NORMALISED,
    spaces={"w": WEIGHTS},
    # Under "node" the statistics are held, and this is then the gradient.
    node_spaces=dict.fromkeys(NORMALISED, (OWN,)),
    why="reduce_sum",
)
def batch_norm_in_training(params, x):
    return after_norm(params, standardised(x @ params["w"], 0))


@architecture(NORMALISED, {**X, "mean": normal(5, 4), "var": 1 + normal(6, 4) ** 2})
def batch_norm_in_evaluation(params, x, mean, var):
    h = (x @ params["w"] - mean[None]) * jax.lax.rsqrt(var + 1e-3)[None]
    return after_norm(params, h)


@architecture(
    {"v": normal(0, 4, 3), "g": 1 + normal(1, 3), "b": normal(2, 3)},
    # The direction is linear in v where its norm is held.
    spaces={"v": ("weights", ANY), "g": (ANY,)},
    node_spaces="either",
)
def weight_norm(params, x):
    v = params["v"]
    w = params["g"][None] * v / jnp.sqrt(jnp.sum(v**2, axis=0, keepdims=True))
    return fit(jnp.tanh(x @ w + params["b"][None]))


# Gates, mixtures and activations.


@architecture({**LAYER, "slope": normal(2, 3), "out": normal(3, 3, 2)})
def prelu(params, x):
    h = x @ params["w"] + params["b"][None]
    h = jnp.maximum(h, 0) + params["slope"][None] * jnp.minimum(h, 0)
    return fit(h @ params["out"])


@architecture({**LAYER, "slope": jnp.array(0.3), "out": normal(3, 3, 2)})
def prelu_of_one_slope(params, x):
    h = x @ params["w"] + params["b"][None]
    return fit(jnp.where(h > 0, h, params["slope"] * h) @ params["out"])


EXPERTS = {"gate": normal(0, 4, 3), "experts": 2 * normal(1, 3, 4, 2)}


@architecture(EXPERTS)
def mixture_with_soft_gates(params, x):
    gates = jax.nn.softmax(x @ params["gate"])
    h = jnp.tanh(jnp.einsum("bi,eij->bej", x, params["experts"]))
    return fit(jnp.einsum("be,bej->bj", gates, h))


@architecture(EXPERTS)
def mixture_with_top_k_gathered(params, x):
    scores, index = jax.lax.top_k(x @ params["gate"], 2)
    chosen = params["experts"][index]
    h = jnp.tanh(jnp.einsum("bi,bkij->bkj", x, chosen))
    return fit(jnp.einsum("bk,bkj->bj", jax.nn.softmax(scores), h))


@architecture(EXPERTS)
def mixture_with_top_k_one_hot(params, x):
    scores, index = jax.lax.top_k(x @ params["gate"], 2)
    gates = jnp.einsum("bk,bke->be", jax.nn.softmax(scores), jax.nn.one_hot(index, 3))
    h = jnp.tanh(jnp.einsum("bi,eij->bej", x, params["experts"]))
    return fit(jnp.einsum("be,bej->bj", gates, h))


@architecture(
    {"w": normal(0, 2, 4), "squeeze": normal(1, 4, 2), "excite": normal(2, 2, 4)},
    SEQUENCES,
)
def squeeze_and_excite(params, x):
    h = jnp.tanh(x @ params["w"])
    gate = jnp.tanh(h.mean(1) @ params["squeeze"]) @ params["excite"]
    return fit(h * jax.nn.sigmoid(gate)[:, None])


@architecture({"up": normal(0, 4, 3), "down": normal(1, 3, 4), "out": normal(2, 4, 2)})
def residual(params, x):
    h = x + jnp.tanh(x @ params["up"]) @ params["down"]
    return fit(h @ params["out"])


@architecture(
    {"w": normal(0, 4, 3), "t": jnp.array(1.5)},
    LABELLED,
    spaces={"t": WEIGHTS},
    node_spaces="refused",
    why="div",
)
def softmax_temperature(params, x, y):
    return cross_entropy(x @ params["w"] / params["t"], y)


@architecture({"w": normal(0, 4, 3), "scale": jnp.array(1.5)}, LABELLED)
def softmax_scale(params, x, y):
    return cross_entropy(x @ params["w"] * params["scale"], y)


@architecture({"w": normal(0, 4, 3), "out": normal(1, 3, 2)})
def dropout(params, x):
    h = jnp.tanh(x @ params["w"])
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, h.shape)
    return fit(jnp.where(keep, 2 * h, 0.0) @ params["out"])


@architecture(
    {"w": normal(0, 2, 3), "out": normal(1, 3, 2)},
    {**SEQUENCES, "mask": jnp.arange(3 * B).reshape(B, 3) % 4 > 0},
)
def masked_mean(params, x, mask):
    h = jnp.where(mask[:, :, None], x @ params["w"], 0.0)
    return fit(jnp.tanh(h.sum(1) / mask.sum(1)[:, None]) @ params["out"])


@architecture({"w": normal(0, 2, 2), "b": normal(1, 2)}, SEQUENCES)
def cumulative_sum(params, x):
    h = jnp.cumsum(x @ params["w"] + params["b"][None, None], axis=1)
    return fit(jnp.tanh(h))


@architecture({"w": normal(0, 4, 5), "out": normal(1, 6, 2)})
def fourier_features(params, x):
    f = jnp.fft.rfft(x @ params["w"])
    return fit(jnp.tanh(jnp.concatenate([f.real, f.imag], axis=1)) @ params["out"])


@architecture({"w": normal(0, 4, 3), "a": normal(1, 3, 2), "c": normal(2, 3, 2)})
def cond_of_every_example(params, x):
    def one(h, x):
        return jax.lax.cond(
            x[0] > 0.5, lambda h: h @ params["a"], lambda h: h @ params["c"], h
        )

    return fit(jax.vmap(one)(jnp.tanh(x @ params["w"]), x))


# Losses.


@architecture(LAYER, LABELLED)
def indexed_logits(params, x, y):
    log_p = jax.nn.log_softmax(x @ params["w"] + params["b"][None])
    return -log_p[jnp.arange(x.shape[0]), y]


@architecture(LAYER, LABELLED)
def logits_taken_along_an_axis(params, x, y):
    log_p = jax.nn.log_softmax(x @ params["w"] + params["b"][None])
    return -jnp.take_along_axis(log_p, y[:, None], axis=1)[:, 0]


@architecture(LAYER, LABELLED)
def integer_cross_entropy(params, x, y):
    return cross_entropy(x @ params["w"] + params["b"][None], y)


@architecture(LAYER, LABELLED)
def one_hot_cross_entropy(params, x, y):
    scores = x @ params["w"] + params["b"][None]
    return optax.softmax_cross_entropy(scores, jax.nn.one_hot(y, 3))


@architecture({**LAYER, "out": normal(2, 3, 3)}, LABELLED)
def vmapped_losses(params, x, y):
    def one(params, x, y):
        scores = jnp.tanh(x @ params["w"] + params["b"]) @ params["out"]
        return jax.nn.logsumexp(scores) - scores[y]

    return jax.vmap(one, (None, 0, 0))(params, x, y)


@architecture(
    LAYER,
    LABELLED,
    spaces={"w": BOTH},
    node_spaces="either",
)
def weight_decay(params, x, y):
    loss = cross_entropy(x @ params["w"] + params["b"][None], y)
    return loss + 0.1 * jnp.sum(params["w"] ** 2)


@architecture(LAYER, {**LABELLED, "weight": jnp.linspace(0.2, 1.8, B)})
def weights_of_examples(params, x, y, weight):
    return weight * cross_entropy(x @ params["w"] + params["b"][None], y)


@architecture(
    {"w": normal(0, 4, 6), "b": normal(1, 6)},
    {**X, "y": jnp.arange(B), "class_weight": jnp.linspace(0.2, 1.8, 6)},
    settings={"batch_argnames": ("x", "y")},
)
def weights_of_classes(params, x, y, class_weight):
    # As many classes as examples, by chance.
    return class_weight[y] * cross_entropy(x @ params["w"] + params["b"][None], y)


# Products.


@architecture({"u": normal(0, 4, 3), "v": normal(1, 3, 2)})
def einsum_of_three(params, x):
    return fit(jnp.tanh(jnp.einsum("bi,ij,jk->bk", x, params["u"], params["v"])))


@architecture({"w": normal(0, 4, 2, 4)})
def einsum_of_two_inputs(params, x):
    return fit(jnp.einsum("bi,ijk,bk->bj", x, params["w"], jnp.tanh(x)))


@architecture({"z": 1 + normal(0, 2), "project": normal(1, 2, 12)})
def hypernetwork(params, x):
    kernel = (params["z"] @ params["project"]).reshape(4, 3)
    return fit(jnp.tanh(x @ kernel))


# Parameters in pieces.


@architecture({"w": normal(0, 4, 4)})
def split_kernel(params, x):
    value, gate = jnp.split(params["w"], 2, axis=1)
    return fit(jnp.tanh(x @ value) * jax.nn.sigmoid(x @ gate))


@architecture({"a": normal(0, 4, 2), "c": normal(1, 4, 2)})
def stacked_kernels(params, x):
    kernels = jnp.stack([params["a"], params["c"]])
    return fit(jnp.tanh(jnp.einsum("bi,kij->bkj", x, kernels)))


@architecture({"a": normal(0, 4, 2), "c": normal(1, 4, 1)})
def concatenated_kernels(params, x):
    return fit(jnp.tanh(x @ jnp.concatenate([params["a"], params["c"]], axis=1)))


@architecture({"w": normal(0, 4, 4), "b": normal(1, 2)})
def tiled_bias(params, x):
    return fit(jnp.tanh(x @ params["w"] + jnp.tile(params["b"], 2)[None]))


@architecture({"w": normal(0, 2, 4, 4)})
def unstacked_kernels(params, x):
    first, second = jnp.unstack(params["w"])
    return fit(jnp.tanh(x @ first) @ second)


@architecture({"w": normal(0, 4, 4)})
def sliced_kernel(params, x):
    return fit(jnp.tanh(x @ params["w"][:, :2]) + x @ params["w"][:, 2:])


@architecture({"w": normal(0, 5, 3)})
def dynamically_sliced_kernel(params, x):
    w = jax.lax.dynamic_slice_in_dim(params["w"], jnp.argmax(jnp.arange(2)), 4)
    return fit(jnp.tanh(x @ w))


# Examples that meet: weight space, up to where they met.

MEETING = {"w": normal(0, 4, 3), "out": normal(1, 3, 2)}
MET = {"spaces": {"w": WEIGHTS}, "node_spaces": "refused"}


@architecture(MEETING, why="rev", **MET)
def reversed_batch(params, x):
    return fit(jnp.tanh(x @ params["w"])[::-1] * x[:, :3] @ params["out"])


@architecture({"w": normal(0, 4, 3)}, why="rev", **MET)
def reversed_batch_alone(params, x):
    # Its only parameter has no nodes.
    return fit(jnp.tanh(x @ params["w"])[::-1] * x[:, :3])


@architecture(MEETING, why="sort", **MET)
def sorted_batch(params, x):
    return fit(jnp.sort(jnp.tanh(x @ params["w"]), axis=0) * x[:, :3] @ params["out"])


@architecture(MEETING, why="gather", **MET)
def argsorted_batch(params, x):
    h = jnp.tanh(x @ params["w"])
    return fit(h[jnp.argsort(x[:, 0])] * x[:, :3] @ params["out"])


@architecture(MEETING, why="concatenate", **MET)
def rolled_batch(params, x):
    h = jnp.tanh(x @ params["w"])
    return fit((jnp.roll(h, 1, axis=0) * 0.7 + 0.3 * h) @ params["out"])


@architecture({"w": normal(0, 4, 3)}, why="slice", **MET)
def mixed_up_batch(params, x):
    # The examples lie twice along one axis, which is then cut elsewhere.
    both = jnp.concatenate([x, -x]) @ params["w"]
    return jnp.sum(both[: x.shape[0]] * jnp.tanh(both[x.shape[0] :]), axis=1)


@architecture({"w": normal(0, 4, 3)}, why="dot_general", **MET)
def contrastive_loss(params, x):
    z = jnp.tanh(x @ params["w"])
    return cross_entropy(z @ (z + 0.1 * x[:, :3]).T, jnp.arange(x.shape[0]))


@architecture({"w": normal(0, 4, 3)}, {**X, "other": X["x"] + normal(7, B, 4)}, **MET)
def contrastive_loss_of_two_views(params, x, other):
    z = jnp.tanh(jnp.concatenate([x, other]) @ params["w"])
    scores = z @ z.T - 1e3 * jnp.eye(2 * x.shape[0])
    pairs = jnp.roll(jnp.arange(2 * x.shape[0]), x.shape[0])
    losses = cross_entropy(scores, pairs)
    return losses[: x.shape[0]] + losses[x.shape[0] :]


@architecture(
    MEETING, spaces={"w": WEIGHTS}, node_spaces="either", why="triangular_solve"
)
def whitened_batch(params, x):
    z = x @ params["w"]
    covariance = z.T @ z / x.shape[0] + jnp.eye(3)
    root = jnp.linalg.cholesky(covariance)
    white = jax.scipy.linalg.solve_triangular(root, z.T, lower=True).T
    return fit(jnp.tanh(white) @ params["out"])


# Solves.


@architecture(
    {"m": 1.5 * jnp.eye(4) + normal(0, 4, 4) / 2, "out": normal(1, 4, 2)},
    spaces={"m": WEIGHTS},
    node_spaces="refused",
    why="custom_linear_solve",
)
def solve_with_a_parameter(params, x):
    return fit(jnp.tanh(jnp.linalg.solve(params["m"], x.T).T) @ params["out"])


@architecture(
    {"w": normal(0, 4, 4), "out": 2 * normal(1, 2, 2)},
    spaces={"w": WEIGHTS},
    node_spaces="refused",
    why="custom_linear_solve",
)
def solve_of_every_example(params, x):
    m = 1.5 * jnp.eye(2)[None] + jnp.tanh(x @ params["w"]).reshape(-1, 2, 2) / 2
    h = jnp.linalg.solve(m, x[:, :2, None])[:, :, 0]
    return fit(jnp.tanh(h) @ params["out"])


# stop_gradient, quantisers and steps.


@architecture(
    {
        "w1": normal(0, 4, 3),
        "v1": normal(1, 3, 2),
        "w2": normal(2, 3, 3),
        "v2": normal(3, 3, 2),
    }
)
def local_losses(params, x):
    h = jnp.tanh(x @ params["w1"])
    first = fit(h @ params["v1"])
    h = jnp.tanh(2 * jax.lax.stop_gradient(h) @ params["w2"])
    return first + 3 * fit(h @ params["v2"])


def straight_through(quantised, w):
    return w + jax.lax.stop_gradient(quantised(w) - w)


def quarters(w):
    return jnp.round(w * 4) / 4


def hundredths(w):
    return jnp.round(w / 0.01) * 0.01


QUANTISED = {"w": normal(0, 4, 3), "b": normal(1, 3), "out": normal(2, 3, 2)}


def quantised_network(quantised, params, x):
    h = jnp.tanh(x @ quantised(params["w"]) + params["b"][None])
    return fit(h @ params["out"])


@architecture(QUANTISED)
def quarters_straight_through(params, x):
    return quantised_network(functools.partial(straight_through, quarters), params, x)


@architecture(QUANTISED)
def hundredths_straight_through(params, x):
    return quantised_network(functools.partial(straight_through, hundredths), params, x)


@architecture(QUANTISED)
def binary_straight_through(params, x):
    return quantised_network(functools.partial(straight_through, jnp.sign), params, x)


PLAINLY = {
    "spaces": {"w": WEIGHTS},
    "node_spaces": "refused",
    "sigma": 0.02,
    "discontinuous": True,
}


@architecture(QUANTISED, why="round", **PLAINLY)
def hundredths_plainly(params, x):
    return quantised_network(hundredths, params, x)


@architecture(QUANTISED, why="sign", **PLAINLY)
def binary_plainly(params, x):
    return quantised_network(jnp.sign, params, x)


# Those with a twin in NumPy, in test_architectures.py: six or seven nodes.

STEPPED = {
    "w": normal(0, 4, 4),
    "b": normal(1, 4),
    "out": normal(2, 4, 2),
    "c": normal(3, 2),
}


def step(h):
    return jnp.where(h > 0, 1.0, -1.0)


@architecture(STEPPED, sigma=0.3, discontinuous=True)
def step_activations(params, x):
    h = step(x @ params["w"] + params["b"][None])
    return fit(h @ params["out"] + params["c"][None])


@architecture(STEPPED, sigma=0.3, discontinuous=True)
def binary_network(params, x):
    inner = straight_through(jnp.sign, params["w"])
    outer = straight_through(jnp.sign, params["out"])
    h = step(x @ inner + params["b"][None])
    return fit(h @ outer / 2 + params["c"][None])


@architecture(
    {
        "w": normal(0, 4, 4),
        "b": normal(1, 4),
        "out": normal(2, 4, 3),
        "c": normal(3, 3),
    },
    LABELLED,
    sigma=0.3,
    discontinuous=True,
)
def stepped_loss(params, x, y):
    h = jnp.tanh(x @ params["w"] + params["b"][None])
    scores = h @ params["out"] + params["c"][None]
    own = jnp.take_along_axis(scores, y[:, None], axis=1)
    # How many classes are not behind the right one.
    return jnp.sum(jnp.where(scores > own - 1e-6, 1.0, 0.0), axis=1) - 1.0


# Parameters that do not move.


@architecture(
    {**LAYER, "steps": jnp.array([1, 2, 3])},
    spaces={"steps": FIXED},
)
def integer_parameter(params, x):
    return fit(jnp.tanh(x @ params["w"] * params["steps"][None] + params["b"][None]))


@architecture({**LAYER, "unused": normal(2, 2)}, spaces={"unused": FIXED})
def unused_parameter(params, x):
    return fit(jnp.tanh(x @ params["w"] + params["b"][None]))


@architecture({**LAYER, "teacher": normal(2, 4, 3)}, spaces={"teacher": FIXED})
def stopped_parameter(params, x):
    target = jnp.tanh(x @ jax.lax.stop_gradient(params["teacher"]))
    return fit(jnp.tanh(x @ params["w"] + params["b"][None]) - target)


COMPLEX = normal(0, 4, 3) + 1j * normal(1, 4, 3)


@architecture({"kernel": COMPLEX.astype(jnp.complex64)}, spaces="refused")
def complex_kernel(params, x):
    h = x.astype(jnp.complex64) @ params["kernel"]
    return fit(h.real**2 + h.imag**2)


@architecture(
    {"kernel": COMPLEX.astype(jnp.complex64), "out": normal(2, 3, 2)},
    spaces="refused",
)
def complex_kernel_beside_a_real_one(params, x):
    h = x.astype(jnp.complex64) @ params["kernel"]
    return fit((h.real**2 + h.imag**2) @ params["out"])


# Modules of other libraries.


class LinenNetwork(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(2, (3,))(x))
        x = nn.max_pool(x, (2,), (1,)).reshape(x.shape[0], -1)
        return nn.Dense(3)(nn.LayerNorm()(nn.Dense(4)(x)))


IMAGES = {"x": 0.5 + normal(3, B, 4, 1), "y": LABELLED["y"]}


@architecture(LinenNetwork().init(jax.random.key(0), IMAGES["x"])["params"], IMAGES)
@promoted
def linen(params, x, y):
    return cross_entropy(LinenNetwork().apply({"params": params}, x), y)


class NnxNetwork(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 2, decode=False, rngs=rngs)
        self.dense = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense(nnx.gelu(x + self.attention(x))).mean(1)


NNX_GRAPH, NNX_PARAMS, NNX_REST = nnx.split(NnxNetwork(nnx.Rngs(0)), nnx.Param, ...)


@architecture(NNX_PARAMS, {**SEQUENCES, "y": LABELLED["y"]})
@promoted
def nnx_module(params, x, y):
    return cross_entropy(nnx.merge(NNX_GRAPH, params, NNX_REST)(x), y)


def haiku_scores(x):
    h = hk.LayerNorm(-1, True, True)(hk.nets.MLP([4, 4], activation=jnp.tanh)(x))
    return hk.Linear(3)(jnp.tanh(h))


HAIKU = hk.without_apply_rng(hk.transform(haiku_scores))


@architecture(HAIKU.init(jax.random.key(0), X["x"]), LABELLED)
@promoted
def haiku(params, x, y):
    return cross_entropy(HAIKU.apply(params, x), y)


EQUINOX_PARAMS, EQUINOX_REST = eqx.partition(
    eqx.nn.MLP(4, 3, 4, 1, activation=jnp.tanh, key=jax.random.key(0)), eqx.is_array
)


@architecture(EQUINOX_PARAMS, LABELLED)
@promoted
def equinox(params, x, y):
    return cross_entropy(jax.vmap(eqx.combine(params, EQUINOX_REST))(x), y)
