"""What QIASO carries from step to step, and what it reports of each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax._arguments import PyTree


class QIASOInfo(NamedTuple):
    """What happened in the last step; every field is a scalar array.

    ``optax.tree.get(state, "expected_loss")`` finds a field in any wrapped state.

    Attributes:
      expected_loss: ⟨p_{t+1}, L_t⟩ (Eq 43), in the units of the loss; ``inf`` where no
        candidate had a finite loss, and before the first step.
      best_loss: min_k L_k, likewise.
      expected_decrease: ⟨p_t − p_{t+1}, s(L_t)⟩, the fall of the expected *scaled*
        loss on the same minibatch. Lemma 3.1 (Eq 45) says that it is at least
        ``kl · kl_strength / eta``.
      kl: KL(p_{t+1} ‖ p_t), in nats.
      entropy: −Σ p log p of p_{t+1}, in nats.
      effective_candidates: 1 / Σ p², between 1 and K.
      num_nonfinite: candidates of this step whose loss was NaN or infinite.
      num_skipped: steps so far that did nothing, as no candidate had a finite loss.
      collapsed: whether the centre moved.
      num_tunnelled: candidates that tunnelled at the end of this step.
    """

    expected_loss: jax.Array
    best_loss: jax.Array
    expected_decrease: jax.Array
    kl: jax.Array
    entropy: jax.Array
    effective_candidates: jax.Array
    num_nonfinite: jax.Array
    num_skipped: jax.Array
    collapsed: jax.Array
    num_tunnelled: jax.Array


class QIASOState(NamedTuple):
    """The state of every optimizer here; all leaves are arrays.

    Attributes:
      step: number of updates so far, int32.
      key: raw uint32 data of the PRNG key of the next step.
      candidates: offsets δ_k from the centre, a pytree like the parameters with a
        leading axis K; empty where they are drawn from the key within a step.
      log_amplitudes: log p, shape ``[K]``, normalised: logsumexp(log p) = 0; of
        ``factorised_qiaso``, ``[blocks, K]``, each row normalised.
      opt_state: state of the ``optimizer`` that is fed with the displacement.
      info: the report on the last step.
    """

    step: jax.Array
    key: jax.Array
    candidates: PyTree
    log_amplitudes: jax.Array
    opt_state: PyTree
    info: QIASOInfo


def empty_info(num_candidates: int, dtype: jax.typing.DTypeLike) -> QIASOInfo:
    """The report before the first step: a uniform superposition, no loss seen."""
    zero = jnp.zeros((), dtype)
    count = jnp.zeros((), jnp.int32)
    return QIASOInfo(
        expected_loss=jnp.full((), jnp.inf, dtype),
        best_loss=jnp.full((), jnp.inf, dtype),
        expected_decrease=zero,
        kl=zero,
        entropy=jnp.log(jnp.full((), num_candidates, dtype)),
        effective_candidates=jnp.full((), num_candidates, dtype),
        num_nonfinite=count,
        num_skipped=count,
        collapsed=jnp.zeros((), bool),
        num_tunnelled=count,
    )
