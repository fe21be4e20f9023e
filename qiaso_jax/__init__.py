"""QIASO, a gradient-free optimizer for JAX in the style of optax."""

from qiaso_jax.factorised import factorised_qiaso
from qiaso_jax.node_space.kernel import node_qiaso
from qiaso_jax.node_space.listing import node_sites
from qiaso_jax.search import MinimizeResult, ask, minimize, tell
from qiaso_jax.state import QIASOInfo, QIASOState
from qiaso_jax.transform import PAPER, qiaso
from qiaso_jax.tunnelling import Tunnelling, gaussian_tunnelling

__all__ = [
    "PAPER",
    "MinimizeResult",
    "QIASOInfo",
    "QIASOState",
    "Tunnelling",
    "ask",
    "factorised_qiaso",
    "gaussian_tunnelling",
    "minimize",
    "node_qiaso",
    "node_sites",
    "qiaso",
    "tell",
]
