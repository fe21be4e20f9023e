"""Reports and probabilities over the steps."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qiaso_jax.plot.styling import WIDTH, colour_bar, curve, drawing, style

LABELS = {
    "entropy": "entropy (nats)",
    "kl": "KL to the prior (nats)",
    "expected_decrease": "fall of the scaled loss",
    "num_tunnelled": "tunnelled candidates",
    "num_nonfinite": "losses not finite",
    "num_skipped": "steps skipped so far",
    "num_flat": "flat steps so far",
    "unresolved": "share of weights unresolved",
}
"""Of fields whose names do not say it all."""

PANELS = ("entropy", "effective_candidates", "num_tunnelled")
"""Fields that ``report`` draws below the losses, where there are such."""


def over_steps(info: Any, name: str, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Draws one field of stacked reports over the steps.

    Args:
      info: ``state.info`` with a leading axis of the steps, as ``jax.lax.scan`` stacks
        it; for a list of them,
        ``jax.tree.map(lambda *fields: jnp.stack(fields), *infos)``.
      name: of a field, as ``"entropy"``, ``"effective_candidates"`` or
        ``"num_tunnelled"``.
      ax: where to; ``None`` for a new figure.
      **kwargs: those of ``ax.plot``.

    Returns:
      The axes.

    Raises:
      ValueError: if ``info`` has no such field, or it is not of shape ``[T]``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, qiaso_jax
      >>> tx = qiaso_jax.qiaso(20, sigma=0.1, optimizer=optax.adam(0.1))
      >>> def step(carry, _):
      ...     params, state = carry
      ...     updates, state = tx.update(
      ...         None, state, params, value_fn=lambda x: jnp.sum((x - 1) ** 2))
      ...     return (optax.apply_updates(params, updates), state), state.info
      >>> params = jnp.zeros(3)
      >>> _, info = jax.lax.scan(step, (params, tx.init(params)), length=100)
      >>> ax = qiaso_jax.plot.over_steps(info, "effective_candidates")
      >>> ax.get_xlabel(), ax.get_ylabel(), len(ax.lines[0].get_ydata())
      ('step', 'effective candidates', 100)
    """
    values = _field(info, name)
    with drawing(ax) as ax:
        curve(np.arange(1, 1 + len(values)), values, ax=ax, **kwargs)
        ax.set(xlabel="step", ylabel=LABELS.get(name, name.replace("_", " ")))
    return ax


def losses(info: Any, *, ax: Axes | None = None) -> Axes:
    r"""Draws the expected and the best loss, and their spread as a band between them.

    The expected loss is :math:`⟨p_{t+1}, L_t⟩` (Eq 43) and the best one
    :math:`\min_k L_k`. As long as they differ, losses tell candidates apart.

    Args:
      info: as for ``over_steps``.
      ax: where to; ``None`` for a new figure.

    Returns:
      The axes.

    Raises:
      ValueError: as ``over_steps``.

    Examples:
      >>> import types, qiaso_jax
      >>> info = types.SimpleNamespace(
      ...     expected_loss=[3.0, 2.0], best_loss=[2.5, 1.9])
      >>> ax = qiaso_jax.plot.losses(info)
      >>> [line.get_label() for line in ax.lines]
      ['expected', 'best candidate']
    """
    expected, best = (_field(info, name) for name in ("expected_loss", "best_loss"))
    steps = np.arange(1, 1 + len(expected))
    with drawing(ax) as ax:
        curve(steps, expected, (best, expected), ax=ax, label="expected")
        colour = ax.lines[-1].get_color()
        curve(steps, best, ax=ax, color=colour, linestyle=":", label="best candidate")
        ax.set(xlabel="step", ylabel="loss")
        ax.legend()
    return ax


def report(info: Any) -> Figure:
    """Draws losses, entropy, effective candidates and tunnelling below each other.

    Args:
      info: as for ``over_steps``.

    Returns:
      A figure with a panel for the losses, and one for each of the others that this
      optimizer reports.

    Raises:
      ValueError: as ``over_steps``.

    Examples:
      >>> import types, qiaso_jax
      >>> info = types.SimpleNamespace(
      ...     expected_loss=[3.0, 2.0], best_loss=[2.5, 1.9], entropy=[3.4, 3.3],
      ...     effective_candidates=[30.0, 27.0], num_tunnelled=[1, 0])
      >>> for ax in qiaso_jax.plot.report(info).axes:
      ...     print(ax.get_ylabel())
      loss
      entropy (nats)
      effective candidates
      tunnelled candidates
    """
    fields = [name for name in PANELS if hasattr(info, name)]
    rows = 1 + len(fields)
    with style():
        figure = plt.figure(figsize=(WIDTH, 0.8 + 1.8 * rows), layout="constrained")
        panels: Any = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
        losses(info, ax=panels[0])
        for ax, name in zip(panels[1:], fields, strict=True):
            over_steps(info, name, ax=ax)
        for ax in panels[:-1]:
            ax.set_xlabel("")
        figure.align_ylabels()
    return figure


def probabilities(log_amplitudes: Any, *, ax: Axes | None = None) -> Axes:
    """Draws how the probabilities of the candidates change from step to step.

    They outlive a step with ``collapse_every`` above 1, and start anew at every
    collapse. Where each step collapses, and in node space, look at ``entropy`` and
    ``effective_candidates`` instead.

    Args:
      log_amplitudes: log p, shape ``[T, K]``: ``state.log_amplitudes`` as
        ``jax.lax.scan`` stacks it; of several groups or blocks those of one.
      ax: where to; ``None`` for a new figure.

    Returns:
      The axes: a column for each step, a row for each candidate.

    Raises:
      ValueError: if the shape is another one, or the probabilities of a step do not
        add up to 1.

    Examples:
      >>> import jax.numpy as jnp, qiaso_jax
      >>> p = jnp.array([[0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1]])
      >>> ax = qiaso_jax.plot.probabilities(jnp.log(p))
      >>> print(ax.collections[0].get_array().T.round(2))
      [[0.25 0.25 0.25 0.25]
       [0.7  0.1  0.1  0.1 ]]
    """
    logs = np.asarray(log_amplitudes, float)
    if logs.ndim != 2 or not logs.size:
        raise ValueError(
            "log_amplitudes must have shape [steps, candidates], got "
            f"{list(logs.shape)}; of several groups or blocks hand in one, as "
            "log_amplitudes[:, 0]."
        )
    p = np.exp(logs)
    sums = p.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-3):
        raise ValueError(
            "log_amplitudes must be logarithms of probabilities that add up to 1 in "
            f"each step, got sums from {sums.min():.3g} to {sums.max():.3g}."
        )
    with drawing(ax) as ax:
        mesh = ax.pcolormesh(
            np.arange(1, 1 + len(p)),
            np.arange(p.shape[1]),
            p.T,
            shading="nearest",
            vmin=0,
            rasterized=True,
        )
        ax.grid(False)
        ax.set(xlabel="step", ylabel="candidate")
        colour_bar(ax, mesh, "probability")
    return ax


def _field(info: Any, name: str) -> np.ndarray:
    if not hasattr(info, name):
        fields = ", ".join(getattr(info, "_fields", ())) or "no fields"
        raise ValueError(
            f"info must be state.info, stacked over the steps, with a field {name!r}; "
            f"got a {type(info).__name__} with {fields}."
        )
    values = np.asarray(getattr(info, name), float)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            "info must be stacked over the steps, as jax.lax.scan does, and along one "
            f"axis; got {name} of shape {list(values.shape)}."
        )
    return values
