"""Pictures of what an optimizer does, by matplotlib.

Loaded when asked for, as ``qiaso_jax.plot``; needs the ``examples`` extra. Every
function draws on the axes that it is given, as they are, and returns them. Without any
it makes a figure in ``STYLE``, by ``matplotlib.pyplot``, so that ``plt.show()`` shows
it.
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(
        "qiaso_jax.plot needs matplotlib, which is not installed: "
        "pip install 'qiaso-jax[examples]'."
    ) from error

from qiaso_jax.plot.landscapes import landscape
from qiaso_jax.plot.node_sites import site_table, sites
from qiaso_jax.plot.steps import losses, over_steps, probabilities, report
from qiaso_jax.plot.styling import (
    COLOURS,
    GREY,
    STYLE,
    WIDTH,
    caption,
    curve,
    save,
    style,
)

__all__ = [
    "COLOURS",
    "GREY",
    "STYLE",
    "WIDTH",
    "caption",
    "curve",
    "landscape",
    "losses",
    "over_steps",
    "probabilities",
    "report",
    "save",
    "site_table",
    "sites",
    "style",
]
