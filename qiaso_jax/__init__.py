"""QIASO, a gradient-free optimizer for JAX in the style of optax."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from qiaso_jax.collapse import Readout
from qiaso_jax.directions import LowRank, low_rank
from qiaso_jax.estimates import pseudo_gradient, signal_to_noise
from qiaso_jax.factorised.kernel import (
    FactorisedInfo,
    FactorisedState,
    factorised_qiaso,
)
from qiaso_jax.low_rank_listing import LowRankSite, low_rank_sites
from qiaso_jax.node_space.kernel import NodeInfo, NodeState, node_qiaso
from qiaso_jax.node_space.listing import node_sites
from qiaso_jax.search.ask_tell import Best, ask, best_so_far, tell
from qiaso_jax.search.futures import Asynchronous
from qiaso_jax.search.minimize import minimize
from qiaso_jax.search.result import MinimizeResult, MinimizeStatus
from qiaso_jax.search.state import SearchInfo
from qiaso_jax.spread import Relative, relative
from qiaso_jax.tunnelling import Tunnelling, gaussian_tunnelling
from qiaso_jax.weight_space import PAPER, QIASOInfo, QIASOState, qiaso

if TYPE_CHECKING:
    from qiaso_jax import flax, plot, theory

__version__ = importlib.metadata.version("qiaso-jax")
"""The version of the package, as it is installed."""

__all__ = [
    "PAPER",
    "Asynchronous",
    "Best",
    "FactorisedInfo",
    "FactorisedState",
    "LowRank",
    "LowRankSite",
    "MinimizeResult",
    "MinimizeStatus",
    "NodeInfo",
    "NodeState",
    "QIASOInfo",
    "QIASOState",
    "Readout",
    "Relative",
    "SearchInfo",
    "Tunnelling",
    "__version__",
    "ask",
    "best_so_far",
    "factorised_qiaso",
    "flax",
    "gaussian_tunnelling",
    "low_rank",
    "low_rank_sites",
    "minimize",
    "node_qiaso",
    "node_sites",
    "plot",
    "pseudo_gradient",
    "qiaso",
    "relative",
    "signal_to_noise",
    "tell",
    "theory",
]

_LOADED_WHEN_ASKED_FOR = ("flax", "plot", "theory")


def __getattr__(name: str) -> Any:
    if name in _LOADED_WHEN_ASKED_FOR:
        return importlib.import_module(f"qiaso_jax.{name}")
    raise AttributeError(f"module 'qiaso_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
