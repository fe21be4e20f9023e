"""A plane through the loss, with the candidates on it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from matplotlib.axes import Axes

from qiaso_jax import _arguments, _trees
from qiaso_jax._arguments import PyTree
from qiaso_jax.evaluation import checked_losses, objective_of_one
from qiaso_jax.plot.styling import COLOURS, WIDTH, colour_bar, drawing
from qiaso_jax.search.ask_tell import ask


def landscape(
    tx: optax.GradientTransformationExtraArgs,
    state: Any,
    params: PyTree,
    value_fn: Callable[..., Any],
    *,
    plane: tuple[PyTree, PyTree] | None = None,
    resolution: int = 41,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    r"""Draws the loss on a plane through the centre, and the candidates on it.

    The plane is :math:`μ + a u + b v` with u and v of length 1, at right angles; a
    candidate :math:`μ + δ_k` is at :math:`(⟨u, δ_k⟩, ⟨v, δ_k⟩)`. Of more than two
    weights, u points from the worse half of the candidates to the better one, and v
    where the rest of their offsets is longest. Candidates then lie beside the plane:
    each is filled with the colour of its own loss, and not of the point below it.

    Args:
      tx: ``qiaso`` or ``factorised_qiaso``, as for ``qiaso_jax.ask``.
      state: its state.
      params: the centre μ.
      value_fn: ``(params, **kwargs) -> scalar``.
      plane: two pytrees like ``params`` that span it in place of u and v.
      resolution: points along an axis; the loss is computed at its square.
      ax: where to; ``None`` for a new figure.
      **kwargs: those of ``value_fn``, as given to ``update``.

    Returns:
      The axes. Of two weights they show these, and of more the distance from the
      centre.

    Raises:
      ValueError: if ``tx`` has no candidates, as ``node_qiaso``; if these, or
        ``plane``, do not span a plane; if parameters are complex.
      TypeError: if the loss is not one real floating array.

    Examples:
      >>> import jax.numpy as jnp, qiaso_jax
      >>> def value_fn(params):
      ...     return params["x"] ** 2 + 2 * params["y"] ** 2
      >>> params = {"x": jnp.array(1.0), "y": jnp.array(0.5)}
      >>> tx = qiaso_jax.qiaso(10, sigma=0.3)
      >>> ax = qiaso_jax.plot.landscape(tx, tx.init(params), params, value_fn)
      >>> surface, candidates = ax.collections[:2]
      >>> surface.get_array().shape, candidates.get_offsets().shape
      ((41, 41), (10, 2))
    """
    resolution = _arguments.int_from(2, "resolution", resolution)
    candidates = ask(tx, state, params)
    params = _trees.arrays(params)
    moves = _trees.moves(params, None)
    centre, unravel = ravel_pytree(_trees.moving(params, moves))
    if jnp.iscomplexobj(centre):
        raise ValueError("landscape draws real parameters, and some are complex.")
    accepted = _arguments.accepted_arguments("value_fn", value_fn, kwargs)
    objective = objective_of_one(value_fn, accepted, params, has_aux=False)

    def loss(point):
        assert objective.value_fn is not None
        value = objective.value_fn(unravel(point), **objective.kwargs)
        return checked_losses(value, (), "value_fn")

    loss_of_all = jax.jit(lambda points: jax.lax.map(loss, points, batch_size=64))

    def flat(tree):
        return ravel_pytree(_trees.moving(tree, moves))[0]

    points, origin = jax.vmap(flat)(candidates), np.asarray(centre, float)
    offsets = np.asarray(points, float) - origin
    of_candidates = np.asarray(loss_of_all(points), float)
    shown_from = np.zeros(2)
    if plane is not None:
        names = "first direction", "second direction"
        axes = np.array([flat(_trees.arrays(each)) for each in plane], float)
    elif len(origin) == 2:
        names, axes, shown_from = ("first weight", "second weight"), np.eye(2), origin
    else:
        names = "u: worse half to better half", "v"
        axes = _directions(offsets, of_candidates)
    axes = _orthonormal(axes)
    places = offsets @ axes.T
    reach = 1.3 * np.abs(places).max() or 1.0
    line = np.linspace(-reach, reach, resolution)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    surface = loss_of_all(jnp.asarray(origin + grid @ axes, centre.dtype))
    surface = np.asarray(surface, float).reshape(resolution, resolution)

    seen = np.concatenate([surface.ravel(), of_candidates])
    seen = seen[np.isfinite(seen)]
    limits = {"vmin": seen.min(), "vmax": seen.max()} if seen.size else {}
    with drawing(ax, height=0.85 * WIDTH) as ax:
        mesh = ax.pcolormesh(
            shown_from[0] + line,
            shown_from[1] + line,
            surface,
            shading="nearest",
            rasterized=True,
            **limits,
        )
        ax.scatter(
            *(shown_from + places).T,
            c=of_candidates,
            s=45,
            edgecolors=COLOURS[3],
            linewidths=1.5,
            label="candidates",
            plotnonfinite=True,
            **limits,
        )
        ax.plot(*shown_from, "X", color=COLOURS[3], markersize=9, label="centre")
        ax.grid(False)
        ax.set(xlabel=names[0], ylabel=names[1], aspect="equal")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        colour_bar(ax, mesh, "loss")
    return ax


def _directions(offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """From the worse half to the better, and where the rest is longest."""
    order = np.argsort(np.where(np.isfinite(values), values, np.inf))
    half = len(order) // 2
    better, worse = offsets[order[:half]], offsets[order[len(order) - half :]]
    first = better.sum(axis=0) - worse.sum(axis=0)
    first /= np.linalg.norm(first) or 1
    rest = offsets - np.outer(offsets @ first, first)
    # By the products of the candidates, who are fewer than the weights.
    _, shares = np.linalg.eigh(rest @ rest.T)
    second = shares[:, -1] @ rest
    is_rounding = np.linalg.norm(second) < 1e-3 * np.linalg.norm(offsets)
    return np.stack([first, np.zeros_like(second) if is_rounding else second])


def _orthonormal(axes: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    if np.all(lengths > 0):
        first, second = axes / lengths
        second = second - (second @ first) * first
        length = np.linalg.norm(second)
        if length > 1e-5:
            return np.stack([first, second / length])
    raise ValueError(
        "plane must be two pytrees like params that span a plane, neither zero nor "
        "parallel; without it three candidates or more, of two weights or more, do."
    )
