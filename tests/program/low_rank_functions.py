"""Functions of weights with low-rank offsets, by what they do with them.

A function is registered under its own name. Of one that is ``factored``, no operation
makes the array of a candidate.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.normal(size=shape)


W = {
    "w": (normal(6, 5), 1),
    "v": (normal(6, 5), 1),
    "square": (normal(6, 6) + 6 * np.eye(6), 1),
    "long": (normal(12, 2), 1),
    "table": (normal(9, 6), 1),
    "query": (normal(6, 2, 3), 1),
    "out": (normal(2, 3, 6), 2),
    "kernel": (normal(3, 3, 4, 6), 3),
    "one": (normal(1, 5), 1),
    "layers": (normal(4, 6, 6), 1),
    "stack": (normal(4, 6, 6), 2),
    "deep": (normal(2, 3, 4, 5), 2),
}
"""Weights, and after how many axes they are cut."""

X = normal(7, 6)
IMAGE = normal(2, 8, 8, 4)
INDICES = np.array([[3, 0], [8, 3], [-1, -9]])


class Function(NamedTuple):
    call: Callable[[dict[str, Any]], Any]
    factored: bool


FUNCTIONS: dict[str, Function] = {}


def factored(fun):
    """One all of whose operations know factors."""
    assert fun.__name__ not in FUNCTIONS
    FUNCTIONS[fun.__name__] = Function(fun, True)
    return fun


def dense(fun):
    """One that makes the array of a candidate."""
    assert fun.__name__ not in FUNCTIONS
    FUNCTIONS[fun.__name__] = Function(fun, False)
    return fun


def x_like(p):
    return X.astype(p["w"].dtype)


# Products.


@factored
def product(p):
    return x_like(p) @ p["w"]


@factored
def product_from_the_left(p):
    return p["w"].T @ x_like(p).T


@factored
def transposed_product(p):
    return jnp.einsum("bj,ij->bi", x_like(p)[:, :5], p["w"])


@factored
def product_with_a_vector(p):
    return x_like(p)[0] @ p["w"], p["w"] @ x_like(p)[0, :5]


@factored
def products_with_parts(p):
    x, w, deep = x_like(p), p["w"], p["deep"]
    return [
        x @ w[:, 0],
        x[:, :5] @ w[2],
        jnp.einsum("bi,i->b", x, w[:, 3]),
        jnp.einsum("i,bi->b", w[:, 3], x),
        x[0] @ w[:, 1],
        jnp.einsum("bd,ad->b", x[:, :4], deep[:, 0, :, 0]),
        jnp.einsum("bd,ac->b", x[:, :4], deep[:, 0, :, 0]),
        jnp.einsum("bad,d->ba", jnp.stack([x[:, :4]] * 2, 1), deep[1, 2, :, 1]),
        jnp.tanh(x @ w[:, 0]) @ x,
        jnp.einsum("ib,i->b", jnp.tanh(x @ p["square"]).T, w[:, 2]),
        jnp.einsum("bi,i->b", jnp.tanh(x @ p["square"]), w[:, 2]),
    ]


@factored
def all_axes_contracted(p):
    return jnp.tensordot(x_like(p)[:6, :5], p["w"])


@factored
def two_axes_of_attention(p):
    h = jnp.einsum("bi,ihd->bhd", x_like(p), p["query"])
    return (
        h,
        jnp.einsum("bhd,hdi->bi", h, p["out"]),
        jnp.einsum("hdi,bi", p["out"], x_like(p)),
    )


@factored
def batched_product(p):
    h = jnp.stack([x_like(p)] * 4)
    return (
        jnp.einsum("lbi,lij->lbj", h, p["layers"]),
        jnp.einsum("lbi,lij->lbj", h, p["stack"]),
        jnp.einsum("lij,lbj->bil", p["stack"], h),
        jnp.einsum("lij,lbj->li", p["layers"], h),
    )


@factored
def deep_products(p):
    a = x_like(p)
    h = jnp.einsum("ba,cd->bacd", a[:, :2], a[:3, :4])
    return [
        jnp.einsum(f"bacd,acde->{out}", h, p["deep"].reshape(2, 3, 4, 5))
        for out in ("be", "bae", "bce", "bde", "acde", "dbae", "eca")
    ] + [jnp.einsum("bd,acde->eabc", a[:, :4], p["deep"])]


@factored
def product_of_what_depends_on_the_candidate(p):
    h = jnp.tanh(x_like(p) @ p["square"])
    h = jnp.tanh(h @ p["w"])
    return jnp.einsum("bj,ij->bi", h, p["w"]) @ p["v"]


@factored
def under_vmap(p):
    def one(x):
        return jnp.tanh(p["w"].T @ x), jnp.dot(x, p["square"])

    return jax.vmap(one)(x_like(p))


@factored
def scalar_product(p):
    return jax.lax.dot_general(p["w"][2, 3], 2.0, (((), ()), ((), ())))


@dense
def weights_times_weights(p):
    return p["w"] @ p["w"].T, p["w"].T @ p["v"], p["w"] * p["v"], p["w"] + p["v"]


# What moves entries.


@factored
def moved(p):
    w, deep = p["w"], p["deep"]
    return [
        w.T + 0,
        w[None] * 2,
        w[::-1, ::2],
        jnp.flip(w),
        w.reshape(3, 2, 5),
        w.reshape(6, 1, 1, 5).squeeze(1),
        deep.transpose(3, 1, 0, 2),
        deep.reshape(6, 20),
        deep.reshape(3, 2, 10, 2),
        deep[1],
        deep[:, 1],
        deep[0, 1, 2],
        deep[1, 2, 3, 4],
        w[2, 3] * 3.0,
        jnp.broadcast_to(w[:, None, :], (6, 4, 5)),
        *jnp.split(w, 3),
        *jnp.split(w, [1, 3], axis=1),
        p["one"][0],
        jnp.broadcast_to(p["one"], (4, 5)),
        jax.lax.dynamic_slice(w, (jnp.argmax(x_like(p)[0]), 1), (2, 3)),
        jax.lax.dynamic_slice(w, (jnp.int32(-2), jnp.int32(50)), (2, 3)),
        jax.lax.dynamic_index_in_dim(p["layers"], 2, keepdims=False),
        jnp.copy(w),
        jax.lax.expand_dims(p["layers"][0], (0, 3)),
    ]


@factored
def slices_without_negative_indices(p):
    starts = jnp.int32(-2), jnp.int32(-1)
    return jax.lax.dynamic_slice(p["w"], starts, (2, 3), allow_negative_indices=False)


@dense
def rows_joined_with_columns(p):
    return (
        p["w"].reshape(30),
        p["w"].reshape(3, 10),
        jnp.ravel(p["kernel"]),
        p["deep"].reshape(2, 12, 5),
    )


@factored
def broadcast_and_used(p):
    wide = jnp.broadcast_to(p["w"][None], (3, 6, 5))
    h = jnp.einsum("bi,lij->lbj", x_like(p), wide)
    return h, wide.sum(0), wide.sum(), (wide**2).sum((0, 2)), (wide**2).sum(0)


# What scales and sums.


@factored
def scaled(p):
    w = p["w"]
    size = jnp.sqrt(jnp.sum(w**2))
    return [
        w * 3,
        3 * w,
        w / 7,
        -w,
        w + 1,
        1 - w,
        w - 1,
        w + x_like(p)[:6, :5],
        x_like(p)[:6, :5] - w,
        w / size,
        w * size,
        w - w.mean(),
        w * size.reshape(1, 1)[0, 0],
    ]


@factored
def sums(p):
    w, deep = p["w"], p["deep"]
    return [
        w.sum(),
        w.sum(0),
        w.sum(1, keepdims=True),
        w.mean(),
        deep.sum((0, 2)),
        deep.sum((1, 2, 3)),
        deep.sum((0, 1)),
    ]


@factored
def sums_of_squares(p):
    w, deep = p["w"], p["deep"]
    return [
        jnp.sum(w**2),
        jnp.sum(jnp.square(w)),
        jnp.sum(w * w),
        jnp.mean(w**2),
        jnp.sum(w**2, axis=0),
        jnp.sum(w**2, axis=1),
        jnp.sum(deep**2, axis=(0, 2)),
        jnp.sum(deep**2, axis=(1, 2, 3)),
        jnp.sum(jnp.square(deep), axis=(0, 1)),
        jnp.sum((2 * w.T - 1) ** 2, axis=0),
        jnp.sum(deep * deep),
        jnp.linalg.norm(w),
        jnp.linalg.norm(w, axis=0),
        jnp.linalg.norm(w, axis=1, keepdims=True),
        optax.tree.norm(p),
        optax.tree.norm(p, squared=True),
    ]


@factored
def weight_decay_of_all(p):
    return sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(p)) * 0.5e-3


@factored
def deviation(p):
    w = p["w"]
    return jnp.sum((w - w.mean()) ** 2), jnp.var(w)


@dense
def absolute(p):
    return (
        jnp.sum(jnp.abs(p["w"])),
        jnp.max(p["w"]),
        jnp.prod(p["w"], axis=0),
        jnp.cumsum(p["w"], axis=1),
    )


@dense
def other_powers(p):
    return (
        jnp.sum(p["w"] ** 3),
        jnp.sum(p["w"] ** 2 * 2),
        jnp.exp(p["w"]),
        jnp.sum(jnp.sqrt(p["w"] ** 2)),
        jnp.sum(p["w"] ** 2.0),
    )


@dense
def products_of_squares(p):
    return (
        x_like(p) @ p["w"] ** 2,
        (p["w"] ** 2)[INDICES % 6],
        (p["w"] ** 2).T,
        p["w"] ** 2 - 1,
        1 / p["w"] ** 2,
        p["w"] ** 2 * p["w"],
        (p["w"] ** 2) ** 2,
    )


@dense
def entries_scaled_differently(p):
    w = p["w"]
    mask = np.arange(30).reshape(6, 5) % 3 > 0
    return (
        w * mask,
        jnp.where(mask, w, 0.0),
        w / w,
        1 / w,
        w / jnp.linalg.norm(w, axis=0)[None],
        w + jnp.arange(5.0, dtype=w.dtype)[None],
    )


# What is taken by indices.


@factored
def embedded(p):
    return [
        p["table"][INDICES],
        jnp.take(p["table"], INDICES, axis=0),
        jnp.take(p["table"], INDICES % 6, axis=1),
        p["table"].at[INDICES + 5].get(mode="fill", fill_value=0.25),
        p["table"].at[INDICES + 5].get(mode="clip"),
        jnp.nan_to_num(p["table"].at[INDICES + 5].get(mode="fill")),
        jnp.take(p["layers"], jnp.array([3, 1]), axis=0),
        jnp.take(p["stack"], jnp.array([3, 1]), axis=1),
        p["deep"][np.array([0, 1, 1]), np.array([2, 0, 1])],
        p["deep"][:, :, np.array([3, 0, 1]), np.array([4, 0, 1])],
        p["deep"][np.array([0, 1, 1]), :, :, :],
        p["table"][jnp.argmax(x_like(p) @ p["w"], axis=1)],
    ]


@factored
def embedded_along_a_broadcast_axis(p):
    wide = jnp.broadcast_to(p["w"][None], (3, 6, 5))
    return [
        wide[np.array([2, 0]), np.array([5, 1])],
        wide.at[np.array([2, 3]), np.array([5, 1])].get(mode="fill", fill_value=0.5),
    ]


@factored
def attended(p):
    h = p["table"][INDICES]
    return jnp.einsum("bsi,vi->bsv", jnp.tanh(h), p["table"])


@dense
def taken_in_other_ways(p):
    w = p["w"]
    order = jnp.argsort(w[0])
    return [
        w[np.array([0, 1, 2]), np.array([2, 0, 1])],
        jnp.take_along_axis(w, jnp.argsort(w, axis=1), axis=1),
        p["layers"][:, np.array([0, 3]), np.array([1, 1])],
        w[:, order],
        p["deep"][np.array([0, 1]), :, np.array([0, 1])],
        jax.vmap(lambda row, i: row[i])(w, np.arange(6) % 5),
        jax.vmap(lambda s: jax.lax.dynamic_slice(w, (s, 1), (2, 3)))(np.arange(3)),
    ]


# Convolutions.


@factored
def convolved(p):
    image, kernel = IMAGE.astype(p["w"].dtype), p["kernel"]
    numbers = ("NHWC", "HWIO", "NHWC")

    def conv(image, kernel, **more):
        more = {"window_strides": (1, 1), "padding": "SAME"} | more
        return jax.lax.conv_general_dilated(
            image, kernel, dimension_numbers=numbers, **more
        )

    h = conv(image, kernel)
    return [
        h,
        conv(image, kernel, window_strides=(2, 2), padding="VALID"),
        conv(image, kernel, rhs_dilation=(2, 1)),
        conv(jnp.tile(image, (1, 1, 1, 2)), kernel, feature_group_count=2),
        conv(image, kernel, padding=((1, 2), (0, 1)), lhs_dilation=(2, 2)),
        conv(jnp.tanh(h[..., :4]), kernel),
        jax.lax.conv_transpose(
            image, kernel, (2, 2), "SAME", dimension_numbers=numbers
        ),
        jax.vmap(lambda one: conv(one[None], kernel)[0])(image),
        jax.lax.conv_general_dilated(
            image.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (1, 1), "SAME"
        ),
    ]


@dense
def convolved_weights(p):
    image = jnp.stack([p["w"]] * 2)[..., None]
    kernel = np.ones((2, 2, 1, 3), p["w"].dtype)
    return jax.lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ), jnp.convolve(p["w"][0], p["v"][1])


# Control flow.


@factored
def scanned(p):
    def layer(h, w):
        return jnp.tanh(h @ w), h.sum(1)

    return [
        jax.lax.scan(layer, x_like(p), p["layers"]),
        jax.lax.scan(layer, x_like(p), p["stack"], reverse=True),
        jax.lax.scan(
            lambda h, ws: layer(h, ws[0] + 1), x_like(p), (p["stack"], p["layers"])
        ),
    ]


@factored
def recurrent(p):
    def cell(h, x):
        h = jnp.tanh(x @ p["square"] + h @ (p["square"] * 0.5))
        return h, h

    h, ys = jax.lax.scan(cell, jnp.zeros(6, p["w"].dtype), x_like(p))
    return h, ys


@factored
def rematerialised(p):
    @jax.checkpoint
    def layer(h, w):
        return jax.nn.silu(h @ w)

    def body(h, w):
        return layer(h, w), None

    return jax.lax.scan(jax.checkpoint(body), x_like(p), p["stack"])[0]


@factored
def branches(p):
    h = x_like(p)
    return [
        jax.lax.cond(h[0, 0] > 0, lambda: h @ p["w"], lambda: h @ p["v"]),
        jax.lax.cond(
            jnp.sum(h @ p["w"]) > 0, lambda w: h @ w, lambda w: h @ (2 * w), p["w"]
        ),
        jax.lax.switch(
            2, [lambda w: w.sum(), lambda w: jnp.sum(w**2), lambda w: w.mean()], p["w"]
        ),
    ]


@factored
def loops(p):
    h = x_like(p)

    def body(state):
        i, h = state
        return i + 1, jnp.tanh(h @ p["square"])

    return [
        jax.lax.while_loop(lambda s: s[0] < 3, body, (0, h)),
        jax.lax.while_loop(
            lambda s: jnp.sum(s[1] @ p["square"]) + s[0] < 30, body, (0, h)
        ),
        jax.lax.fori_loop(0, 4, lambda i, h: jnp.tanh(h @ p["layers"][i]), h),
        jax.lax.fori_loop(
            0,
            h.shape[0] % 4 + jnp.argmax(h[0]),
            lambda i, h: jnp.tanh(h @ p["stack"][i % 4]),
            h,
        ),
    ]


@dense
def weights_carried(p):
    def body(carry, x):
        w, _ = carry
        return (0.9 * w, w), x @ w

    return [
        jax.lax.scan(body, (p["w"], p["v"]), x_like(p)),
        jax.lax.fori_loop(0, 3, lambda i, w: w * 0.5, p["w"]),
        jax.lax.while_loop(lambda w: jnp.sum(w) > -1, lambda w: w - 1, p["w"]),
        jax.lax.cond(p["w"][0, 0] > 0, lambda w: w, lambda w: -w, p["w"]),
        jax.lax.scan(lambda c, x: (c, x), 0, p["stack"])[1],
        jax.lax.scan(lambda c, w: (c + 1, jnp.sum(w)), 0, p["stack"] ** 2),
        jax.lax.scan(
            lambda c, x: (c + jnp.sum(p["w"] ** 2) * x, p["w"] ** 2 + x),
            jnp.zeros((), p["w"].dtype),
            x_like(p)[0],
        ),
    ]


# Derivatives and custom rules.


@factored
def gradients_of_inputs(p):
    def energy(x):
        return jnp.sum(jax.nn.softplus(jnp.tanh(x @ p["square"]) @ p["w"]))

    return jax.grad(energy)(x_like(p)), jax.jvp(energy, (x_like(p),), (x_like(p),))


@factored
def activations(p):
    h = x_like(p) @ p["w"]
    return [
        jax.nn.silu(h),
        jax.nn.relu(h),
        jax.nn.gelu(h),
        jax.nn.logsumexp(h),
        jax.nn.softmax(h),
        jax.nn.one_hot(h.argmax(1), 5),
    ]


@dense
def gradients_of_weights(p):
    def energy(w):
        return jnp.sum(jnp.tanh(x_like(p) @ w)) + jnp.sum(w**2)

    inner = jax.grad(energy)(p["w"])
    return energy(p["w"] - 0.1 * inner), jnp.sum(inner**2)


@dense
def custom_rules_of_weights(p):
    return jax.nn.silu(p["w"]), jax.nn.relu(p["w"]) @ x_like(p)[0, :5]


# What has no rule.


@dense
def without_rules(p):
    w, s = p["w"], p["square"]
    x = x_like(p)
    return [
        jnp.round(w / 0.25) * 0.25,
        jnp.floor(w).astype(jnp.int8),
        jnp.linalg.solve(s, x.T),
        jnp.linalg.qr(s)[1] ** 2,
        jnp.abs(jnp.fft.fft(w)),
        jnp.concatenate([w, p["v"]]),
        jnp.stack([w, w]),
        jnp.pad(w, 1),
        w.at[2].set(1.0),
        w.at[:, np.array([1, 2])].multiply(2.0),
        jnp.tile(w, (2, 3)),
        jnp.repeat(w, 2, axis=0),
        jnp.roll(w, 2, axis=0),
        jnp.kron(w, x[:2, :2]),
        jnp.einsum("ij,ij->j", w, p["v"]),
        jnp.trace(s),
        jnp.diag(s),
        jnp.tril(s),
        w > 0,
        jnp.sort(w, axis=1),
        jax.lax.top_k(w, 2)[0],
        jnp.linalg.det(s),
        jnp.linalg.inv(s),
        x.astype(complex) @ w,
        jax.nn.softmax(w),
        jnp.sign(w) * w,
        jnp.clip(w, -0.5, 0.5),
        jax.lax.stop_gradient(w) * w,
        jnp.outer(w[:, 0], w[0]),
        jnp.matmul(w[None], w.T[None]),
        jax.lax.reduce_precision(w, 5, 4),
        jnp.where(jnp.isfinite(w).all(), w.sum(), 0.0),
    ]


@factored
def constants(p):
    return jnp.zeros_like(p["w"]), jnp.ones(3), p["w"].shape[0] * 1.0
