"""The kinds of directions that are compared."""

from __future__ import annotations

from typing import Any

import qiaso_jax

DEFAULTS = ("gaussian", "rademacher", "low_rank")
"""What the default may be."""
RANKS = (1, 2, 4, 8)
DENSE = {"signs": "rademacher", "normal": "gaussian"}
SIGNS = {f"rank {rank}": qiaso_jax.low_rank(rank) for rank in RANKS}
NORMAL = {
    f"rank {rank}, normal": qiaso_jax.low_rank(rank, factors="gaussian")
    for rank in RANKS
}
EVERY: dict[str, Any] = DENSE | SIGNS | NORMAL
"""By the names of the table of ranks."""
