"""node_qiaso: a superposition per example, in node space."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from qiaso_jax import _arguments
from qiaso_jax.amplitudes import uniform
from qiaso_jax.evaluation import accepted_arguments
from qiaso_jax.interpret import Environment, Program, evaluate, trace
from qiaso_jax.reactive import reactive_nodes
from qiaso_jax.sites import Site, Sites, find_sites, perturbed_losses, pull_back
from qiaso_jax.state import QIASOState, empty_info
from qiaso_jax.superposition import is_inexact

PyTree = Any


def node_qiaso(
    num_candidates: int = 30,
    sigma=0.02,
    eta=0.0,
    *,
    optimizer,
    examples: float = 0.25,
    noise: str = "rademacher",
    reactive_only: bool = True,
    candidate_batch_size: int | None = None,
    batch_argnames: Sequence[str] | None = None,
    space="auto",
    key=0,
):
    num_pairs = num_candidates // 2
    key_data, key_impl = _arguments.prng_key(key)
    inner = optax.masked(optimizer, lambda tree: jax.tree.map(is_inexact, tree))
    chunk = _largest_divisor(
        num_pairs, 5 if candidate_batch_size is None else max(1, candidate_batch_size // 2)
    )

    def init(params):
        dtype = jnp.float32
        return QIASOState(
            step=jnp.zeros((), jnp.int32),
            key=key_data,
            candidates=(),
            log_amplitudes=uniform(num_candidates, dtype),
            opt_state=inner.init(params),
            info=empty_info(num_candidates, dtype),
        )

    def update(updates, state, params=None, *, value_fn=None, **kwargs):
        if updates is None:
            updates = optax.tree.zeros_like(params)
        centre = jax.tree.map(
            lambda p, u: (p + u).astype(p.dtype) if is_inexact(p) else p,
            params,
            updates,
        )
        next_key, select_key, noise_key = jax.random.split(
            jax.random.wrap_key_data(state.key, impl=key_impl), 3
        )
        sigma_now = _arguments.at_step(sigma, state.step)
        eta_now = _arguments.at_step(eta, state.step)
        kwargs = accepted_arguments(value_fn, kwargs)
        leaves, treedef = jax.tree.flatten(centre)
        size = jax.eval_shape(lambda p: value_fn(p, **kwargs), centre).shape[0]
        names = [
            n
            for n, v in kwargs.items()
            if all(jnp.ndim(x) and jnp.shape(x)[0] == size for x in jax.tree.leaves(v))
        ]
        fixed = {n: v for n, v in kwargs.items() if n not in names}
        batch, batchdef = jax.tree.flatten({n: kwargs[n] for n in names})

        def fun(leaves, batch):
            return value_fn(
                jax.tree.unflatten(treedef, leaves),
                **jax.tree.unflatten(batchdef, batch),
                **fixed,
            )

        b = max(1, round(examples * size))
        program = trace(fun, leaves, batch, b)
        sites = find_sites(program, frozenset())

        # clean
        if b < size:
            clean_losses = fun(leaves, batch)
            rows, weights = _telling(select_key, clean_losses, b)
            batch = [x[rows] for x in batch]
        clean = evaluate(program, leaves, batch)
        if b == size:
            clean_losses, weights = clean.read(program.losses), jnp.ones(b)
        masks = [
            reactive_nodes(program, site, clean, sigma_now)
            if reactive_only and site.axis is not None
            else None
            for site in sites.sites
        ]
        draw = _rademacher(noise_key, sites, masks, num_pairs)
        losses_of = perturbed_losses(program, sites, clean)

        def pair(j):
            us = draw(j, sigma_now)
            return jax.vmap(lambda sign: losses_of([sign.astype(u.dtype) * u for u in us]))(
                jnp.array([1.0, -1.0])
            )

        js = jnp.arange(num_pairs).reshape(-1, chunk)
        losses = jax.lax.map(jax.vmap(pair), js).reshape(num_pairs, 2, b)
        diff = losses[:, 0] - losses[:, 1]
        c = -diff / (2 * sigma_now * num_pairs) * (weights / b)[None]

        def add(acc, x):
            js, cs = x
            for i in range(chunk):
                zs = draw(js[i], None)
                acc = [
                    a + z(_expand(cs[i], site)) for a, z, site in zip(acc, zs, sites.sites)
                ]
            return acc, None

        acc = [jnp.zeros(s.variable.aval.shape) for s in sites.sites]
        acc, _ = jax.lax.scan(add, acc, (js, c.reshape(-1, chunk, b)))
        cots = [
            -a if m is None else jnp.where(m, -a, 0) for a, m in zip(acc, masks)
        ]
        grads = pull_back(program, sites, cots, clean)
        grads = [jnp.zeros_like(l) if g is None else g for g, l in zip(grads, leaves)]
        grads = jax.tree.unflatten(treedef, grads)
        moved, opt_state = inner.update(grads, state.opt_state, centre)
        updates = jax.tree.map(lambda u, d: u + d, updates, moved)
        return updates, QIASOState(
            step=optax.safe_increment(state.step),
            key=jax.random.key_data(next_key),
            candidates=(),
            log_amplitudes=state.log_amplitudes,
            opt_state=opt_state,
            info=state.info._replace(expected_loss=jnp.mean(clean_losses)),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _largest_divisor(n, at_most):
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= at_most)


def _expand(c, site):
    shape = site.variable.aval.shape
    if site.axis is None:
        return jnp.broadcast_to(jnp.sum(c), shape)
    axis, repeats = site.axis
    c = jnp.repeat(c, repeats) if repeats > 1 else c
    return jnp.expand_dims(c, [i for i in range(len(shape)) if i != axis])


def _rademacher(key, sites, masks, num_pairs):
    assert num_pairs <= 32
    keys = jax.random.split(key, len(sites.sites))
    words = [
        jax.random.bits(k, s.variable.aval.shape, jnp.uint32)
        for k, s in zip(keys, sites.sites)
    ]

    def draw(j, sigma):
        j = j.astype(jnp.uint32)
        if sigma is None:
            return [
                lambda c, w=w: jnp.where((w >> j) & 1 == 1, c, -c) for w in words
            ]
        out = []
        for s, m, w in zip(sites.sites, masks, words):
            amp = jnp.asarray(sigma, s.variable.aval.dtype)
            amp = jnp.where(m, amp, 0) if m is not None else amp
            out.append(jnp.where((w >> j) & 1 == 1, amp, -amp))
        return out

    return draw


def _telling(key, losses, count, mix=0.1):
    size = losses.shape[0]
    excess = losses - jnp.min(losses)
    q = (1 - mix) * excess / jnp.maximum(jnp.sum(excess), 1e-30) + mix / size
    q = q / jnp.sum(q)
    cum = jnp.cumsum(q)
    u = (jnp.arange(count) + jax.random.uniform(key)) / count
    rows = jnp.clip(jnp.searchsorted(cum, u * cum[-1]), 0, size - 1)
    return rows, 1 / (size * q[rows])
