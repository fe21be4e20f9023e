"""QIASO, a gradient-free optimizer for JAX in the style of optax."""

from qiaso_jax.search import ask, tell
from qiaso_jax.state import QIASOInfo, QIASOState
from qiaso_jax.transform import PAPER, qiaso
from qiaso_jax.tunnelling import Tunnelling, gaussian_tunnelling

__all__ = [
    "PAPER",
    "QIASOInfo",
    "QIASOState",
    "Tunnelling",
    "ask",
    "gaussian_tunnelling",
    "qiaso",
    "tell",
]
