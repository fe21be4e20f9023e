"""One look for all figures, and curves.

Colours lie half way between light and dark, and the background is transparent, so that
one file is legible on white pages and on dark ones.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

COLOURS = (
    "#2f7fd6", "#d9730d", "#2a9d4a", "#e0484d", "#9a6ae0", "#0f9aa0", "#d9569b",
    "#8f8a1e",
)  # fmt: skip
"""Of lines, in their order: neither light nor dark, so as to be seen on both."""

GREY = "#808080"
"""Of text, ticks and frames."""

WIDTH = 5.6
"""Inches of a figure: its text is nine pixels high on a phone of 360."""

FEW = 30
"""Up to so many points of a curve are marked."""

STYLE: Mapping[Any, Any] = MappingProxyType(
    {
        "axes.edgecolor": GREY,
        "axes.formatter.useoffset": False,
        "axes.grid": True,
        "axes.labelcolor": GREY,
        "axes.prop_cycle": cycler("color", COLOURS),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 11,
        "figure.figsize": (WIDTH, 0.6 * WIDTH),
        "figure.titlesize": 11,
        "font.size": 10.5,
        "grid.alpha": 0.3,
        "grid.color": GREY,
        "legend.fontsize": 9.5,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 4,
        "savefig.dpi": 192,
        "savefig.transparent": True,
        "svg.hashsalt": "qiaso_jax",
        "text.color": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
    }
)
"""Settings of matplotlib for light and dark pages, on a screen, a phone and paper.

The background is transparent, and no colour is nearer than 3 : 1 in contrast to white
or to the dark grey of pages by night. ``plt.rcParams.update(qiaso_jax.plot.STYLE)``
makes everything look so.
"""


def style() -> Any:
    """``STYLE`` for a while: a context, or a decorator of a function that draws.

    Examples:
      >>> import matplotlib.pyplot as plt, qiaso_jax
      >>> with qiaso_jax.plot.style():
      ...     figure, ax = plt.subplots()
      >>> ax.xaxis.label.get_color() == qiaso_jax.plot.GREY
      True
    """
    return matplotlib.rc_context(dict(STYLE))


def save(drawn: Figure | Axes, path: str | Path) -> tuple[Path, Path]:
    """Writes a figure for the screen and for print, with a transparent background.

    Args:
      drawn: a figure, or axes in it; in ``STYLE`` it can be read on light and on dark
        pages.
      path: of both files, with ``.svg``, ``.png`` or no ending. The same figure gives
        the same files.

    Returns:
      The paths of an SVG and of a PNG with two pixels for one of the screen.

    Raises:
      TypeError: if ``drawn`` is neither.

    Examples:
      >>> import tempfile, qiaso_jax
      >>> ax = qiaso_jax.plot.curve([1, 2, 3], [3.0, 2.0, 1.5])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     paths = qiaso_jax.plot.save(ax, f"{folder}/falls")
      ...     print([path.name for path in paths])
      ['falls.svg', 'falls.png']
    """
    figure = drawn.get_figure(root=True) if isinstance(drawn, Axes) else drawn
    if not isinstance(figure, Figure):
        raise TypeError(
            f"drawn must be a figure of matplotlib, or axes in one, got {drawn!r}."
        )
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".svg", ".png") else path
    vector, pixels = (stem.with_name(stem.name + end) for end in (".svg", ".png"))
    with style():
        figure.savefig(vector, metadata={"Date": None})
        figure.savefig(pixels, metadata={"Software": None})
    return vector, pixels


def caption(figure: Figure, text: str) -> None:
    """Says below a figure what is drawn, and how it was measured.

    Args:
      figure: with ``layout="constrained"``, which makes room for it.
      text: broken into lines as wide as the figure.

    Examples:
      >>> import matplotlib.pyplot as plt, qiaso_jax
      >>> figure = plt.figure(layout="constrained")
      >>> qiaso_jax.plot.caption(figure, "MNIST, three seeds.")
      >>> figure.get_supxlabel()
      'MNIST, three seeds.'
    """
    figure.supxlabel(text, x=0.01, ha="left", fontsize=9.5, linespacing=1.3, wrap=True)


def curve(
    x: Any,
    y: Any,
    band: tuple[Any, Any] | None = None,
    *,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """Draws a line, its points where they are few, and a band around it.

    Args:
      x: abscissae, shape ``[T]``.
      y: ordinates, likewise; what is not finite leaves a gap.
      band: the lower and the upper edge of the band, shape ``[T]`` each.
      ax: where to; ``None`` for a new figure.
      **kwargs: those of ``ax.plot``.

    Returns:
      The axes, whose y-axis spans a twentieth of its values or more: of a curve that
      hardly changes it shows that it hardly does.

    Raises:
      ValueError: unless all are vectors of one length, which is not 0.

    Examples:
      >>> import qiaso_jax
      >>> ax = qiaso_jax.plot.curve([1, 2], [0.5, 0.4], ([0.4, 0.3], [0.6, 0.5]))
      >>> print(ax.lines[0].get_ydata(), ax.lines[0].get_marker())
      [0.5 0.4] o
    """
    x, y = (_vector(name, each) for name, each in (("x", x), ("y", y)))
    edges = () if band is None else tuple(_vector("band", edge) for edge in band)
    if any(len(each) != len(x) for each in (y, *edges)):
        lengths = ", ".join(str(len(each)) for each in (x, y, *edges))
        raise ValueError(
            f"x, y and the edges of band must be of one length, got {lengths}."
        )
    with drawing(ax) as ax:
        if len(x) <= FEW:
            kwargs.setdefault("marker", "o")
        (line,) = ax.plot(x, y, **kwargs)
        if edges:
            colour = line.get_color()
            low, high = edges
            ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        widen(ax)
    return ax


@contextlib.contextmanager
def drawing(ax: Axes | None, height: float = 0.6 * WIDTH) -> Iterator[Axes]:
    """The axes to draw on: the given ones, or those of a new figure in ``STYLE``."""
    if ax is not None:
        yield ax
        return
    with style():
        yield plt.figure(figsize=(WIDTH, height), layout="constrained").subplots()


def widen(ax: Axes, least: float = 0.05) -> None:
    """Has the y-axis span so much of its values, and go on to follow what is drawn."""
    low, high = ax.get_ylim()
    if ax.get_yscale() == "linear" and high - low < least * abs(high + low) / 2:
        middle = (high + low) / 2
        half = least * abs(middle) / 2
        ax.set_ylim(middle - half, middle + half, auto=True)


def colour_bar(ax: Axes, drawn: Any, label: str) -> None:
    """What the colours of ``drawn`` stand for, beside ``ax``."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(drawn, ax=ax, label=label)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _vector(name: str, value: Any) -> np.ndarray:
    values = np.asarray(value, float)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"{name} must be a vector of one number or more, got shape "
            f"{list(values.shape)}."
        )
    return values
