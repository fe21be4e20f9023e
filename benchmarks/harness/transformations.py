"""The optax transformations of the comparison that are more than one call of optax.

Each is made from a setting and a key: ``make(setting, key)``.
"""

from __future__ import annotations

from typing import Any

import jax
import optax

import qiaso_jax
from benchmarks.harness.data import CLASSES
from benchmarks.harness.interface import Setting

MUON_ADAM = 0.1
"""Nadam's rate, for what is not a hidden layer's kernel, in units of Muon's."""
MUON_WEIGHT_DECAY = 0.03


def adam(setting: Setting, _: Any) -> optax.GradientTransformation:
    """Optax's."""
    return optax.adam(setting.learning_rate)


def sophia(setting: Setting, key: jax.Array) -> optax.GradientTransformation:
    """optax's, with Hutchinson's estimate of the Hessian's diagonal."""
    return optax.contrib.sophia(
        setting.learning_rate,
        hessian_diagonal_fn=optax.contrib.hutchinson_estimator_diag_hessian(
            jax.random.key_data(key)
        ),
    )


def muon(setting: Setting, _: Any) -> optax.GradientTransformation:
    """optax's, on the kernels of hidden layers; Nadam on what else there is."""
    return optax.contrib.muon(
        setting.learning_rate,
        weight_decay=MUON_WEIGHT_DECAY,
        adam_learning_rate=lambda step: MUON_ADAM * setting.learning_rate(step),
        muon_weight_dimension_numbers=hidden_kernels,
    )


def hidden_kernels(params: Any) -> Any:
    """The axes of each hidden layer's kernel as a matrix, None for other leaves.

    The output layer is told by its width, as many units as there are classes.
    """

    def axes(leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        if leaf.ndim < 2 or leaf.shape[-1] == CLASSES:
            return None
        *inputs, output = range(leaf.ndim)
        return optax.contrib.MuonDimensionNumbers(tuple(inputs), output)

    return jax.tree.map(axes, params)


def qiaso_paper(setting: Setting, key: jax.Array) -> optax.GradientTransformation:
    """The printed algorithm; the paper's t counts epochs, ours update steps."""
    steps = setting.steps_per_epoch
    settings: dict[str, Any] = dict(qiaso_jax.PAPER) | {
        "num_candidates": setting.num_candidates,
        "sigma": setting.sigma,
        "eta": optax.exponential_decay(1.0, steps, 1 / 0.995, end_value=1e3),
        "tunnelling": qiaso_jax.gaussian_tunnelling(
            0.02, 1.0, 0.995, transition_steps=steps
        ),
        "candidate_batch_size": setting.candidate_batch_size,
    }
    if setting.without == "kl":
        settings["kl_strength"] = None
    if setting.without == "tunnelling":
        settings["tunnelling"] = None
    return qiaso_jax.qiaso(**settings, key=key)


def qiaso(setting: Setting, key: jax.Array) -> optax.GradientTransformation:
    """The working form: Adam on the displacement."""
    directions = setting.directions
    if directions == "low_rank":
        directions = qiaso_jax.low_rank(setting.rank)
    return qiaso_jax.qiaso(
        setting.num_candidates,
        setting.sigma,
        directions=directions,
        optimizer=optax.adam(setting.learning_rate),
        candidate_batch_size=setting.candidate_batch_size,
        key=key,
        **grouped(setting),
    )


def grouped(setting: Setting) -> dict[str, Any]:
    """The argument of groups that see slices of a minibatch, if there are some."""
    return {"groups": setting.groups} if setting.groups > 1 else {}


def node_qiaso(setting: Setting, key: jax.Array) -> optax.GradientTransformation:
    """Adam on the node-space estimate.

    The statistics of batch normalisation are held; a multilayer perceptron is in node
    space anyway.
    """
    return qiaso_jax.node_qiaso(
        setting.num_candidates,
        setting.sigma,
        optimizer=optax.adam(setting.learning_rate),
        examples=setting.examples,
        batch_argnames=("batch",),
        space="node",
        key=key,
    )


def hybrid_adam(setting: Setting, key: jax.Array) -> optax.GradientTransformation:
    """Adam moves a weight by the learning rate."""
    return optax.chain(adam(setting, key), _candidates(0.1, setting, key))


def hybrid_muon(setting: Setting, key: jax.Array) -> optax.GradientTransformation:
    """Muon moves one by a fiftieth of it where 2,304 numbers enter a layer."""
    return optax.chain(muon(setting, key), _candidates(0.002, setting, key))


def _candidates(
    spread: float, setting: Setting, key: jax.Array
) -> optax.GradientTransformation:
    # The displacement of a step is about sigma / sqrt(K) per weight, mostly noise. It
    # has to be small beside the gradient's step, and to end with it.
    def sigma(step: Any) -> Any:
        return spread * setting.learning_rate(step) + 1e-8

    # As many candidates at a time as see one minibatch's number of examples.
    at_a_time = setting.candidate_batch_size
    if at_a_time is not None:
        at_a_time = int(at_a_time / setting.examples)
        at_a_time = at_a_time if at_a_time < setting.num_candidates else None
    return qiaso_jax.qiaso(
        setting.num_candidates, sigma, candidate_batch_size=at_a_time, key=key
    )
