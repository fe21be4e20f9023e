"""Train states for Flax linen, and helpers for Flax nnx.

flax's own ``TrainState.apply_gradients`` hands no extra arguments to the optimizer;
``nnx.Optimizer.update`` does, and lacks only a loss as a function of the parameters.
Needs the ``flax`` extra.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from qiaso_jax._arguments import PyTree, named_arguments

try:
    from flax import nnx
    from flax.training import train_state
except ImportError as error:
    raise ImportError(
        "qiaso_jax.flax needs flax, which is not installed: "
        "pip install 'qiaso-jax[flax]'."
    ) from error


class TrainState(train_state.TrainState):
    r"""flax's linen train state, for optimizers that evaluate the loss themselves.

    A drop-in replacement: what is new is that ``apply_gradients`` forwards
    ``value_fn`` and its arguments to ``tx.update``, that ``value_fn`` may ask for
    fields of the state, and that gradients may be missing.

    A loss with dropout asks for ``step``, and draws its mask from
    ``jax.random.fold_in(key, step)``: all candidates of a step share it.

    Examples:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, qiaso_jax
      >>> from qiaso_jax.flax import TrainState
      >>> model = nn.Dense(1)
      >>> x = jnp.linspace(-1, 1, 8)[:, None]
      >>> def loss_fn(params, batch):
      ...     x, y = batch
      ...     return jnp.mean((model.apply({"params": params}, x) - y) ** 2)
      >>> state = TrainState.create(
      ...     apply_fn=model.apply,
      ...     params=model.init(jax.random.key(0), x)["params"],
      ...     tx=qiaso_jax.qiaso(sigma=0.1, optimizer=optax.adam(0.1)))
      >>> @jax.jit
      ... def train_step(state, batch):
      ...     return state.apply_gradients(value_fn=loss_fn, batch=batch)
      >>> for _ in range(100):
      ...     state = train_step(state, (x, 2 * x + 1))
      >>> print(bool(loss_fn(state.params, (x, 2 * x + 1)) < 0.01))
      True
    """

    def apply_gradients(self, *, grads: PyTree | None = None, **kwargs: Any) -> Self:
        r"""One update: :math:`θ ← θ + u`, with u from ``tx.update``.

        Args:
          grads: gradients with the structure of ``params``; ``None`` for zeros, which
            is what a gradient-free ``tx`` takes.
          **kwargs: those that name a field of the state replace it, as in flax, and
            reach ``value_fn`` too if it takes them; all others, such as ``value_fn``
            and ``batch``, are forwarded to ``tx.update``. An argument that ``value_fn``
            requires, and that names a field which is not given, is the state's own.

        Returns:
          A state with ``step + 1``, the new ``params`` and the new ``opt_state``.

        Raises:
          ValueError: if a field is named that an update computes (``step``, ``params``,
            ``opt_state`` or ``tx``), or an argument that ``tx.update`` has already.
        """
        computed = {"step", "params", "opt_state", "tx"} & kwargs.keys()
        if computed:
            raise ValueError(
                f"apply_gradients computes {', '.join(sorted(computed))}; "
                "to set it, use state.replace."
            )
        taken = {"updates", "state"} & kwargs.keys()
        if taken:
            raise ValueError(
                f"apply_gradients cannot forward {', '.join(sorted(taken))}, which "
                "tx.update calls its own argument; bind it to value_fn with "
                "functools.partial, or rename it."
            )
        if grads is None:
            grads = jax.tree.map(jnp.zeros_like, self.params)
        fields = {k: v for k, v in kwargs.items() if k in self.__dataclass_fields__}
        extra = {k: v for k, v in kwargs.items() if k not in fields}
        for name in {"value_fn", "candidates_value_fn"} & extra.keys():
            if callable(extra[name]):
                extra[name] = _with_fields(extra[name], self, fields)
        # Not by the type: optax.MultiSteps has such an update, and is not of optax's.
        update = partial(self.tx.update, **named_arguments(self.tx.update, extra))
        # flax's method does the rest; it only must not see the extra arguments.
        bound = optax.GradientTransformation(self.tx.init, update)
        state: Any = self.replace(tx=bound)
        state = train_state.TrainState.apply_gradients(state, grads=grads, **fields)
        return state.replace(tx=self.tx)


def _with_fields(
    value_fn: Callable[..., Any], state: TrainState, given: dict[str, Any]
) -> Callable[..., Any]:
    """``value_fn`` with the fields bound that it takes or, if not given, requires."""
    required = [
        parameter.name
        for parameter in list(inspect.signature(value_fn).parameters.values())[1:]
        if parameter.default is parameter.empty
    ]
    own = {
        name: getattr(state, name)
        for name in required
        if name in state.__dataclass_fields__
    }
    bound = own | named_arguments(value_fn, given)
    return partial(value_fn, **bound) if bound else value_fn


class BatchStatsTrainState(TrainState):
    r"""``TrainState`` with the running averages of batch normalisation.

    A candidate's forward pass in training mode normalises with the statistics of its
    own activations, and what it would add to the running averages is thrown away.
    ``refresh_batch_stats`` then runs the collapsed model once, and keeps its averages.

    Attributes:
      batch_stats: the collection of that name, a pytree of arrays.

    Examples:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, optax, qiaso_jax
      >>> from qiaso_jax.flax import BatchStatsTrainState
      >>> model = nn.Sequential([nn.Dense(4), nn.BatchNorm(False), nn.Dense(1)])
      >>> x = jnp.linspace(-1, 1, 8)[:, None]
      >>> state = BatchStatsTrainState.create(
      ...     apply_fn=model.apply, **model.init(jax.random.key(0), x),
      ...     tx=qiaso_jax.qiaso(sigma=0.1, optimizer=optax.adam(0.1)))
      >>> def loss_fn(params, batch, batch_stats):
      ...     x, y = batch
      ...     variables = {"params": params, "batch_stats": batch_stats}
      ...     output, _ = model.apply(variables, x, mutable=["batch_stats"])
      ...     return jnp.mean((output - y) ** 2)
      >>> @jax.jit
      ... def train_step(state, batch):
      ...     state = state.apply_gradients(value_fn=loss_fn, batch=batch)
      ...     return state.refresh_batch_stats(batch[0])
      >>> for _ in range(100):
      ...     state = train_step(state, (x, 2 * x + 1))
      >>> print(bool(loss_fn(state.params, (x, 2 * x + 1), state.batch_stats) < 0.05))
      True
    """

    batch_stats: Any = None

    def refresh_batch_stats(self, *args: Any, **kwargs: Any) -> Self:
        """The state with ``batch_stats`` after one forward pass.

        Args:
          *args: the model's inputs.
          **kwargs: the model's keyword arguments; they must put it in training mode.
            Where it has dropout, ``rngs`` with a key that no step uses.

        Returns:
          The same state but for ``batch_stats``.
        """
        variables = {"params": self.params, "batch_stats": self.batch_stats}
        _, updated = self.apply_fn(variables, *args, mutable=["batch_stats"], **kwargs)
        return self.replace(batch_stats=updated["batch_stats"])


def nnx_value_fn(
    model: nnx.Module, loss_fn: Callable[..., jax.Array], *, wrt: Any = nnx.Param
) -> Callable[..., jax.Array]:
    r"""The loss of an nnx model as a function of its parameters, for ``value_fn``.

    .. math:: ℓ(θ; B) = \mathrm{loss\_fn}(\mathrm{model}_θ, B)

    Every evaluation works on a copy of the model, so that a candidate leaves no trace
    in batch statistics, counters of random streams or the model's other variables.

    To be called once in every step: the copies share one fork of the model's random
    streams, so that all candidates see the same dropout mask, and the model's own
    streams move on by one draw, so that the next step sees another.

    Args:
      model: the module, as it is when this function is called; only the counters of
        its random streams are updated, in place.
      loss_fn: ``(model, **kwargs) -> scalar``, or one loss per example for
        ``node_qiaso``.
      wrt: which variables are the parameters; the same as ``nnx.Optimizer`` was given.

    Returns:
      ``value_fn(params, **kwargs)``, with the argument names of ``loss_fn``.

    Raises:
      TypeError: if ``loss_fn`` takes no argument for the model.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, qiaso_jax
      >>> from flax import nnx
      >>> from qiaso_jax.flax import nnx_value_fn
      >>> def loss_fn(model, x, y):
      ...     return jnp.mean((model(x) - y) ** 2)
      >>> model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
      >>> tx = qiaso_jax.qiaso(sigma=0.1, optimizer=optax.adam(0.1))
      >>> optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
      >>> @nnx.jit
      ... def train_step(model, optimizer, x, y):
      ...     zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
      ...     value_fn = nnx_value_fn(model, loss_fn)
      ...     optimizer.update(model, zeros, value_fn=value_fn, x=x, y=y)
      >>> x = jnp.linspace(-1, 1, 8)[:, None]
      >>> for _ in range(100):
      ...     train_step(model, optimizer, x, 2 * x + 1)
      >>> print(bool(loss_fn(model, x, 2 * x + 1) < 0.01))
      True
    """
    parameters = list(inspect.signature(loss_fn).parameters.values())
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise TypeError(
            "loss_fn must take the model as its first argument, got a function of "
            f"signature {inspect.signature(loss_fn)}."
        )
    graph, _, rest = nnx.split(_forked(model), wrt, ...)
    for stream in _streams(model):
        stream.count.set_value(stream.count.get_value() + 1)

    def value_fn(params: Any, *args: Any, **kwargs: Any) -> jax.Array:
        return loss_fn(nnx.merge(graph, params, rest, copy=True), *args, **kwargs)

    # The optimizer forwards the arguments that the signature names.
    value_fn.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("params", inspect.Parameter.POSITIONAL_ONLY),
            *parameters[1:],
        ]
    )
    return value_fn


def nnx_refresh_batch_stats(model: nnx.Module, *args: Any, **kwargs: Any) -> None:
    """Updates a model's batch statistics by one forward pass in training mode.

    Nothing else changes: not the mode the model is in, and not the counters of its
    random streams. Dropout in this pass has a mask that no step has. To be called after
    ``nnx.Optimizer.update``.

    Args:
      model: the collapsed model, updated in place.
      *args: its inputs.
      **kwargs: its keyword arguments.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from qiaso_jax.flax import nnx_refresh_batch_stats
      >>> model = nnx.BatchNorm(1, momentum=0.5, rngs=nnx.Rngs(0))
      >>> model.eval()
      >>> nnx_refresh_batch_stats(model, jnp.array([[1.0], [3.0]]))
      >>> print(model.mean[...], model.use_running_average)
      [1.] True
    """
    # Steps count up from the start of the streams, this counts down from their end.
    copy = _forked(model, jnp.invert)
    copy.train()
    copy(*args, **kwargs)  # type: ignore[operator]
    nnx.update(model, nnx.state(copy, nnx.BatchStat))


def _streams(model: nnx.Module) -> list[nnx.RngStream]:
    nodes = (node for _, node in nnx.iter_graph(model))
    return [node for node in nodes if isinstance(node, nnx.RngStream)]


def _forked(
    model: nnx.Module, draw: Callable[[jax.Array], jax.Array] = jnp.asarray
) -> nnx.Module:
    """A copy of ``model`` with each random stream forked, at ``draw(count)``.

    What ``nnx.fork_rngs`` does, also for the streams of modules made by ``nnx.vmap``,
    which have one key for each of their members.
    """
    copy = nnx.clone(model)
    for stream in _streams(copy):
        count = stream.count.get_value()
        fold_in = jnp.vectorize(jax.random.fold_in)
        stream.key.set_value(fold_in(stream.key.get_value(), draw(count)))
        stream.count.set_value(jnp.zeros_like(count))
    return copy
