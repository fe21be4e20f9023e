"""What a run computes, and the numbers it takes from the tuned file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.cli import (
    UserError,
    option,
    require,
    require_at_least,
    require_fraction,
    require_positive,
    require_some,
)
from benchmarks.harness.data import DatasetName
from benchmarks.harness.interface import Ablation, DirectionsName
from benchmarks.harness.networks import InitName, NetworkName
from benchmarks.harness.optimizers import REGISTRY, OptimizerName

RATES = Path(__file__).parents[1] / "results" / "learning_rates.json"
DEFAULT_SIGMA = 0.02


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides the result of a run."""

    dataset: DatasetName = "mnist"
    network: NetworkName = "mlp"
    optimizer: OptimizerName = "adam"
    epochs: int = 10
    """Passes over the training split."""
    seeds: int = 1
    """How many seeds run side by side, in one compiled program."""
    first_seed: int = 0
    batch_size: int = 128
    learning_rate: float | None = None
    """Its value at the start, for optimizers that have one. Default: the one of
    benchmarks/results/learning_rates.json."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate falls over the epochs; cosine ends at zero."""
    sigma: float | None = None
    """Spread of the candidates. Default: 0.02, or the one of learning_rates.json for
    optimizers that have no learning rate."""
    candidates: int = 30
    """Candidates of population methods."""
    examples: float | None = None
    """Fraction of a minibatch that candidates are evaluated on, by node-qiaso and the
    hybrids. Default: 0.25, and all for the hybrids."""
    directions: DirectionsName | None = None
    """How qiaso draws its candidates. Default: rademacher, and low_rank for
    qiaso-low-rank."""
    rank: int | None = None
    """Of the directions low_rank. Default: 1."""
    groups: int | None = None
    """Groups of so many candidates each, for qiaso: each sees its own slice of a
    minibatch. Default: 1."""
    budget: float | None = None
    """Sample-forwards per seed: cuts the epochs to what they pay for."""
    without: Ablation | None = None
    """What qiaso-paper leaves out: one mechanism, as in the paper's Table 6."""
    initialisation: InitName = "xavier"
    initial_mean: float = 0.0
    """Mean of the weights under the initialisation "gaussian"."""
    initial_spread: float = 0.05
    """Their standard deviation."""
    hidden: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers of an mlp."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Channels of the convolutions of a cnn. Each halves the image, but for the last of
    cnn-global; of cnn-deep every second does, but for the last."""
    shift: int = 0
    """Augmentation: shift by up to so many pixels."""
    flip: bool = False
    """Augmentation: mirror left to right."""
    rotate: float = 0.0
    """Augmentation: turn by up to so many degrees."""
    zoom: float = 0.0
    """Augmentation: scale height and width by up to so much of them."""
    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes, in the loss that is
    trained on; losses on the validation and the test split are without it."""
    validation: float = 0.1
    """Fraction of the training set that is set aside for validation."""
    limit: int | None = None
    """Train on so many examples only."""

    def __post_init__(self):
        require_at_least(self, 1, "epochs", "seeds", "batch_size", "candidates")
        require_at_least(self, 1, "hidden", "channels", "limit", "rank", "groups")
        require_some(self, "channels")
        require_positive(self, "learning_rate", "sigma", "budget", "initial_spread")
        require_fraction(self, "examples")
        require(self, "at least 0", lambda x: 0 <= x < math.inf, "shift", "rotate")
        shares = ("zoom", "label_smoothing", "validation")
        require(self, "in [0, 1)", lambda x: 0 <= x < 1, *shares)
        if self.without and self.optimizer != "qiaso-paper":
            raise UserError(f"--without is for qiaso-paper, got {self.optimizer}")
        if self.optimizer in ("open-es", "pgpe", "node-qiaso"):
            # They draw antithetic pairs.
            require(self, "even", lambda number: number % 2 == 0, "candidates")


@dataclasses.dataclass(frozen=True)
class Command:
    """Trains one network on one dataset under one optimizer."""

    experiment: Annotated[Experiment, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Experiment
    )
    output: Path | None = None
    """Where results go. Default: runs/<dataset>-<network>-<optimizer>."""
    resume: bool = False
    """Continue the run in the output folder, with the settings stored there."""
    checkpoint_every: int = 1
    """Epochs from one checkpoint to the next."""
    tensorboard: bool = False
    """Write TensorBoard event files too."""
    data_dir: Path | None = None
    """A folder with sub-folders mnist, fashion_mnist, cifar10 of parquet files.
    Default: QIASO_DATA_DIR, and the hub where that is unset."""
    cache_dir: Path | None = None
    """Cache of the datasets library. Default: its own."""

    @property
    def folder(self) -> Path:
        """The output folder."""
        e = self.experiment
        return self.output or Path("runs") / f"{e.dataset}-{e.network}-{e.optimizer}"


def tuned_value(optimizer: str) -> float:
    """The optimizer's number in the tuned file."""
    try:
        return float(json.loads(RATES.read_text())["chosen"][optimizer])
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{RATES} has no value for {optimizer}: pass "
            f"{option(REGISTRY[optimizer].tunes)}, or run python -m benchmarks.tune"
        ) from error


def resolved(experiment: Experiment) -> Experiment:
    """``experiment`` with the defaults that the optimizer decides filled in."""
    name = experiment.optimizer
    entry = REGISTRY[name]
    sigma, learning_rate = experiment.sigma, experiment.learning_rate
    if entry.tunes == "sigma":
        if learning_rate is not None:
            raise UserError(f"{name} has no learning rate; what it takes is --sigma")
        sigma = tuned_value(name) if sigma is None else sigma
        learning_rate = None
    else:
        if learning_rate is None:
            # One rate for what is one computation.
            low_rank = name == "qiaso" and experiment.directions == "low_rank"
            learning_rate = tuned_value("qiaso-low-rank" if low_rank else name)
        if not entry.has_candidates and sigma is not None:
            raise UserError(f"{name} has no candidates, and so no --sigma")
        if entry.has_candidates and sigma is None:
            sigma = DEFAULT_SIGMA
    directions, rank, groups = _directions(experiment)
    examples = entry.examples if experiment.examples is None else experiment.examples
    if entry.examples is None and examples is not None:
        takers = [key for key, each in REGISTRY.items() if each.examples is not None]
        raise UserError(
            f"--examples is for {', '.join(takers)}, whose candidates may see a share "
            f"of a minibatch; got {examples} for {name}"
        )
    return dataclasses.replace(
        experiment,
        sigma=sigma,
        learning_rate=learning_rate,
        examples=examples,
        directions=directions,
        rank=rank,
        groups=groups,
    )


def _directions(
    experiment: Experiment,
) -> tuple[DirectionsName | None, int | None, int | None]:
    """Directions, rank and groups: of qiaso those asked for, else none."""
    name = experiment.optimizer
    default = REGISTRY[name].directions
    if default is None:
        for field in ("directions", "rank", "groups"):
            value = getattr(experiment, field)
            if value is not None:
                takers = [key for key, each in REGISTRY.items() if each.directions]
                raise UserError(
                    f"{option(field)} is for {', '.join(takers)}; got {value} for "
                    f"{name}"
                )
        return None, None, None
    directions = experiment.directions or default
    rank, groups = experiment.rank, experiment.groups or 1
    if default == "low_rank" and directions != default:
        raise UserError(
            f"{name} has the directions low_rank, got {directions}: take --optimizer "
            "qiaso for others"
        )
    if directions != "low_rank" and rank is not None:
        raise UserError(
            f"--rank is for --directions low_rank, got {rank} for {directions}"
        )
    if directions == "low_rank":
        rank = rank or 1
    if experiment.batch_size % groups:
        raise UserError(
            f"--groups must divide --batch-size, {experiment.batch_size}, into equal "
            f"slices; got {groups}"
        )
    return directions, rank, groups
