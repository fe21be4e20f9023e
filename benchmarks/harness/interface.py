"""What networks and optimizers have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.harness.networks import Batch, cross_entropy

Ablation = Literal["superposition", "kl", "tunnelling"]
DirectionsName = Literal["gaussian", "rademacher", "low_rank"]


class Setting(NamedTuple):
    """The numbers an optimizer is made from; it reads those that it has a use for."""

    peak_learning_rate: float
    schedule: Literal["constant", "cosine"]
    sigma: float
    num_candidates: int
    examples: float
    steps_per_epoch: int
    total_steps: int
    label_smoothing: float = 0.0
    without: Ablation | None = None
    candidate_batch_size: int | None = None
    directions: DirectionsName = "rademacher"
    rank: int = 1
    groups: int = 1

    @property
    def learning_rate(self) -> optax.Schedule:
        """The learning rate over update steps; the cosine ends at zero."""
        if self.schedule == "constant":
            return optax.constant_schedule(self.peak_learning_rate)
        return optax.cosine_decay_schedule(self.peak_learning_rate, self.total_steps)


class State(NamedTuple):
    """What continues from step to step; all leaves are arrays."""

    params: Any
    batch_stats: Any
    inner: Any


class Optimizer(NamedTuple):
    """``init(key, params, batch_stats)`` and ``step(state, batch)``.

    ``step`` returns the next state and a training loss: that of the minibatch before
    the step where gradients are used, and the candidates' expected or mean loss where
    they are not.
    """

    init: Callable[[jax.Array, Any, Any], State]
    step: Callable[[State, Batch], tuple[State, jax.Array]]


class Objective(NamedTuple):
    """Cross-entropy of a network in training mode, from its ``apply``."""

    apply: Callable[[Any, Any, jax.Array, bool], tuple[jax.Array, Any]]
    label_smoothing: float = 0.0

    def losses(self, params: Any, batch_stats: Any, batch: Batch) -> jax.Array:
        """One loss per example, shape ``[B]``."""
        logits, _ = self.apply(params, batch_stats, batch.images, True)
        return cross_entropy(logits, batch.labels, self.label_smoothing)

    def loss_and_stats(
        self, params: Any, batch_stats: Any, batch: Batch
    ) -> tuple[jax.Array, Any]:
        """The mean loss of a minibatch, and the batch statistics it leaves."""
        logits, batch_stats = self.apply(params, batch_stats, batch.images, True)
        losses = cross_entropy(logits, batch.labels, self.label_smoothing)
        return jnp.mean(losses), batch_stats

    def loss(self, params: Any, batch_stats: Any, batch: Batch) -> jax.Array:
        """The mean loss alone: a candidate leaves no trace in the statistics."""
        return self.loss_and_stats(params, batch_stats, batch)[0]

    def refreshed(self, params: Any, batch_stats: Any, batch: Batch) -> Any:
        """``batch_stats`` after one forward pass of the collapsed model."""
        if not jax.tree.leaves(batch_stats):
            return batch_stats
        return self.apply(params, batch_stats, batch.images, True)[1]
