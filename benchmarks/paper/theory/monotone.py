"""Section 3.2: whether the expected loss of a run falls at every step (Eq 44)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax
from benchmarks.markdown import table
from benchmarks.paper.section import reproduced, share
from benchmarks.paper.theory.claims import Claims, Outcome, Sizes
from benchmarks.rastrigin.methods import PAPER

EXAMPLES, WEIGHTS, BATCH = 512, 10, 32
SIGMA = 0.3
RISE = 1e-9
"""Relative; less is rounding in float64."""
NEVER: dict[str, Any] = {"collapse_every": 1_000_000}
SETTINGS: dict[str, dict[str, Any]] = {
    "amplification alone": {**NEVER, "tunnelling": None},
    "and tunnelling": NEVER,
    "and collapses": {"tunnelling": None},
    "all three": {},
}
"""Changes to the paper's settings; tunnelling and collapses move the candidates."""
RUNS = (
    f"{{runs}} runs of {{steps}} steps of `qiaso`, least squares with {WEIGHTS} weights"
)

CLAIMS = Claims()


def measure(sizes: Sizes) -> dict[str, Any]:
    """The share of rising steps with all examples and with minibatches."""
    names = SETTINGS if sizes.thorough else ("amplification alone", "all three")
    with jax.enable_x64(True):
        rising = {name: rising_shares(sizes, SETTINGS[name]) for name in names}
    return {"runs": sizes.runs, "steps": sizes.steps, "rising": rising}


def rising_shares(sizes: Sizes, changes: dict[str, Any]) -> list[float]:
    """The shares of steps at which the expected loss of all examples rises.

    Least squares; a step sees all examples (the first share) or a minibatch (the
    second). The expected loss is ⟨p_{t+1}, L⟩ (Eq 43), L over all examples.
    """
    x, y = regression()

    def loss(weights, seen):
        return jnp.square(x @ weights - y) @ seen / jnp.sum(seen)

    def expected(key, minibatches):
        tx = qiaso_jax.qiaso(**{**PAPER, "sigma": SIGMA, **changes}, key=key)
        update: Any = tx.update

        def step(carry, seen):
            weights, state = carry
            candidates = weights[None] + state.candidates
            losses = jax.vmap(loss, (0, None))(candidates, seen)
            p = jax.nn.softmax(state.log_amplitudes - PAPER["eta"](state.step) * losses)
            over_all = p @ jax.vmap(loss, (0, None))(candidates, jnp.ones(EXAMPLES))
            updates, state = update(None, state, weights, value_fn=loss, seen=seen)
            return (optax.apply_updates(weights, updates), state), over_all

        start = jnp.zeros(WEIGHTS)
        return jax.lax.scan(step, (start, tx.init(start)), minibatches)[1]

    keys = jax.random.split(jax.random.key(0), sizes.runs)
    search = jax.jit(jax.vmap(expected))
    curves = [np.asarray(search(keys, seen)) for seen in examples_seen(sizes)]
    return [float(np.mean(np.diff(c, axis=1) > RISE * c[:, :-1])) for c in curves]


def examples_seen(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """1 for an example that a step sees, for all examples and for minibatches."""
    everything = np.ones((sizes.runs, sizes.steps, EXAMPLES))
    few = (np.arange(EXAMPLES) < BATCH) * everything
    return everything, np.random.default_rng(1).permuted(few, axis=-1)


def regression() -> tuple[jax.Array, jax.Array]:
    """Inputs and noisy targets of a linear model."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, WEIGHTS))
    y = x @ rng.normal(size=WEIGHTS) + rng.normal(size=EXAMPLES)
    return jnp.asarray(x), jnp.asarray(y)


@CLAIMS.add(
    "Theorem 3.1, Eq 44",
    "the expected loss of fixed candidates on fixed examples never rises",
)
def _fixed(content: dict[str, Any]) -> Outcome:
    rising, _ = content["rising"]["amplification alone"]
    return Outcome(
        RUNS.format(**content),
        f"rises at {share(rising)} of the steps",
        reproduced(rising == 0, "wrong"),
    )


@CLAIMS.add(
    "Eq 44, sections 3.2 and 4.5", "the expected loss falls monotonically in training"
)
def _training(content: dict[str, Any]) -> Outcome:
    _, minibatches = content["rising"]["amplification alone"]
    moving, both = content["rising"]["all three"]
    return Outcome(
        f"{RUNS.format(**content)}, minibatches of {BATCH} of {EXAMPLES}",
        f"rises at {share(minibatches)} of the steps by minibatches alone, at "
        f"{share(moving)} by moving candidates alone, at {share(both)} by both",
        reproduced(max(minibatches, moving, both) == 0, "wrong"),
    )


def body(content: dict[str, Any]) -> str:
    """The share of rising steps, in Markdown."""
    head = (
        "what a step does",
        f"all {EXAMPLES} examples",
        f"minibatches of {BATCH}",
    )
    rows = [(name, *map(share, pair)) for name, pair in content["rising"].items()]
    return (
        "Share of steps at which the expected loss of all examples rises (Eq 44), "
        f"{content['runs']} runs of {content['steps']} steps:\n\n" + table(head, rows)
    )
