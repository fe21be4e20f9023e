"""Where noise enters a network, as a picture and as a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from qiaso_jax.node_space.listing import NodeSite
from qiaso_jax.plot.styling import COLOURS, GREY, drawing

COLOUR_OF_SPACE = {
    "node": COLOURS[0],
    "example": COLOURS[4],
    "weights": COLOURS[1],
    "fixed": GREY,
}
NOISE = {
    "node": "noise at the nodes",
    "example": "noise at the weights, each example its own",
    "weights": "noise at the weights, the same for all",
    "fixed": "does not move",
}
"""What ``NodeSite.space`` says, in words."""


def sites(listed: Sequence[NodeSite], *, ax: Axes | None = None) -> Axes:
    """Draws where noise enters a network, from what ``node_sites`` lists.

    A bar for each parameter at each site, from above in the order of evaluation: as
    long as it has weights, in the colour of its space. A ring is at the number of nodes
    per example, which in node space get noise in the place of the weights, and a dot at
    how many of them react.

    Args:
      listed: by ``qiaso_jax.node_sites``.
      ax: where to; ``None`` for a new figure, as high as it has to be.

    Returns:
      The axes.

    Raises:
      ValueError: if nothing is listed.
      TypeError: if something else is.

    Examples:
      >>> import jax, jax.numpy as jnp, qiaso_jax
      >>> def value_fn(params, x):
      ...     return jnp.sum(jax.nn.relu(x @ params["kernel"]), axis=-1)
      >>> params = {"kernel": jnp.ones((3, 5))}
      >>> listed = qiaso_jax.node_sites(value_fn, params, x=jnp.eye(3))
      >>> ax = qiaso_jax.plot.sites(listed)
      >>> print(*(bar.get_width() for bar in ax.patches))
      15
    """
    listed = _checked_sites(listed)
    rows = range(len(listed))
    with drawing(ax, height=1.6 + 0.4 * len(listed)) as ax:
        bars = ax.barh(
            rows,
            [site.weights for site in listed],
            color=[COLOUR_OF_SPACE[site.space] for site in listed],
            alpha=0.7,
        )
        spaces = {site.space: bar for site, bar in zip(listed, bars, strict=True)}
        handles: list[Any] = [spaces[space] for space in NOISE if space in spaces]
        labels = [f"weights: {NOISE[space]}" for space in NOISE if space in spaces]
        for label, face, counts in (
            ("nodes per example", "none", [site.nodes for site in listed]),
            ("of these reactive", COLOURS[3], [site.reactive for site in listed]),
        ):
            if not any(counts):
                continue
            handles += ax.plot(
                [count or np.nan for count in counts],
                rows,
                linestyle="",
                marker="o",
                markersize=9 if face == "none" else 5,
                color=COLOURS[3],
                markerfacecolor=face,
            )
            labels.append(label)
        ax.set(xscale="log", xlabel="number", ylim=(len(listed) - 0.5, -0.5))
        ax.set_xlim(left=0.7)
        ax.set_yticks(rows, [f"{site.path}\n({site.kind})" for site in listed])
        ax.grid(False, axis="y")
        ax.legend(handles, labels, loc="lower left", bbox_to_anchor=(-0.2, 1))
    return ax


def site_table(listed: Sequence[NodeSite]) -> str:
    """What ``node_sites`` lists as a table in Markdown.

    Args:
      listed: by ``qiaso_jax.node_sites``.

    Returns:
      A line for each parameter at each site.

    Raises:
      ValueError, TypeError: as ``sites``.

    Examples:
      >>> import jax, jax.numpy as jnp, qiaso_jax
      >>> def value_fn(params, x):
      ...     return jnp.sum(jax.nn.relu(x @ params["kernel"]), axis=-1)
      >>> params = {"kernel": jnp.ones((3, 5)), "unused": jnp.ones(2)}
      >>> listed = qiaso_jax.node_sites(value_fn, params, x=jnp.eye(3))
      >>> print(qiaso_jax.plot.site_table(listed))
      | parameter | enters by | space | weights | nodes | reactive | why |
      | --- | --- | --- | ---: | ---: | ---: | --- |
      | kernel | product | node | 15 | 5 | 5 | |
      | unused | weights | fixed | 2 | 0 | 0 | the losses do not depend on it |
    """
    lines = [
        ("parameter", "enters by", "space", "weights", "nodes", "reactive", "why"),
        ("---", "---", "---", "---:", "---:", "---:", "---"),
    ]
    for site in _checked_sites(listed):
        counts = f"{site.weights:,}", f"{site.nodes:,}", f"{site.reactive:.4g}"
        why = site.reason.replace("|", "\\|")
        lines.append((site.path, site.kind, site.space, *counts, why))
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def _checked_sites(listed: Any) -> list[NodeSite]:
    listed = list(listed)
    for site in listed:
        if not isinstance(site, NodeSite):
            raise TypeError(
                "listed must be what qiaso_jax.node_sites returns, got a "
                f"{type(site).__name__} in it."
            )
    if not listed:
        raise ValueError("listed must have one site or more, got none.")
    return listed
