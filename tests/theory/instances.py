"""Random instances, and what NumPy and SciPy make of them in float64.

Tolerances: a function that sums K terms of size S in float32 is trusted to within
``1e-5 · S``.
"""

import numpy as np
import scipy.special
from hypothesis import settings
from hypothesis import strategies as st

ROUNDING = 1e-5

property_test = settings(deadline=None, derandomize=True, max_examples=60)

etas = st.floats(2**-6, 30.0, width=32)


# A fixed few lengths, since every new one compiles every function again.
@st.composite
def instances(draw, zeros=False, lengths=(1, 2, 7)):
    """Losses with frequent ties, and a prior, both exact in float32."""
    k = draw(st.sampled_from(lengths))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    losses = rng.uniform(-10.0, 10.0, k)
    if draw(st.booleans()):
        losses = np.round(losses)
    p = rng.dirichlet(np.full(k, draw(st.sampled_from([0.3, 1.0, 10.0]))))
    p = np.maximum(p, 1e-6)
    if zeros and k > 1:
        p[rng.permutation(k)[: rng.integers(0, k)]] = 0.0
    return losses.astype(np.float32), (p / p.sum()).astype(np.float32)


@st.composite
def distribution_pairs(draw):
    _, q = draw(instances(zeros=True))
    _, p = draw(instances(zeros=True, lengths=[len(q)]))
    return q, p


def oracle_weights(losses, p, eta):
    with np.errstate(divide="ignore"):
        return scipy.special.softmax(
            np.log(p.astype(float)) - eta * losses.astype(float)
        )


def oracle_kl(q, p):
    return scipy.special.rel_entr(np.asarray(q, float), np.asarray(p, float)).sum()
