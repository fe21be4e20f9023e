"""What a run computes, and the numbers it takes from the tuned file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

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
from benchmarks.harness import networks
from benchmarks.harness.data import DatasetName
from benchmarks.harness.interface import Ablation, DirectionsName
from benchmarks.harness.networks import InitName, NetworkName
from benchmarks.harness.optimizers import REGISTRY, OptimizerName

RATES = Path(__file__).parents[1] / "results" / "learning_rates.json"

TAKES: dict[str, dict[str, dict[str, Any]]] = {
    "optimizer": {name: entry.takes for name, entry in REGISTRY.items()},
    "directions": {"low_rank": {"rank": 1}},
    "network": networks.TAKES,
    "initialisation": {"gaussian": {"initial_mean": 0.0, "initial_spread": 0.05}},
}
"""What not every choice takes: choice, chosen, setting, default.

An earlier choice may decide the default of a later one.
"""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides the result of a run.

    None is a setting that is not made: its default is what the choice it belongs to
    says (``TAKES``), if that takes it at all.
    """

    dataset: DatasetName = "mnist"
    """Images in ten classes; digits are scikit-learn's, and need no download."""
    network: NetworkName = "mlp"
    """The paper's, and two other orders of the layers of its CNN."""
    optimizer: OptimizerName = "adam"
    """Baselines, evolution strategies, and QIASO in its forms."""
    epochs: int = 10
    """Passes over the training split."""
    seeds: int = 1
    """How many seeds run side by side, in one compiled program."""
    first_seed: int = 0
    """The others follow it."""
    batch_size: int = 128
    """Examples of a minibatch."""
    learning_rate: float | None = None
    """Its value at the start, for optimizers that have one. Default: the one of
    benchmarks/results/learning_rates.json."""
    schedule: Literal["cosine", "constant"] | None = None
    """How the learning rate falls over the epochs. Default: cosine, which ends at
    zero."""
    sigma: float | None = None
    """Spread of the candidates. Default: 0.02, or the one of learning_rates.json for
    optimizers that have no learning rate. That of the hybrids follows their rate."""
    candidates: int | None = None
    """Candidates, for optimizers that have some. Default: 30."""
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
    """How kernels start."""
    initial_mean: float | None = None
    """Mean of the weights under the initialisation gaussian. Default: 0."""
    initial_spread: float | None = None
    """Their standard deviation. Default: 0.05."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers of an mlp. Default: 128 64."""
    channels: tuple[int, ...] | None = None
    """Channels of the convolutions of a cnn. Each halves the image, but for the last of
    cnn-global; of cnn-deep every second does, but for the last. Default: 16 32 64."""
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
        if self.channels is not None:
            require_some(self, "channels")
        require_positive(self, "learning_rate", "sigma", "budget", "initial_spread")
        require_fraction(self, "examples")
        require(self, "at least 0", lambda x: 0 <= x < math.inf, "shift", "rotate")
        shares = ("zoom", "label_smoothing", "validation")
        require(self, "in [0, 1)", lambda x: 0 <= x < 1, *shares)
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


def completed(experiment: Experiment) -> tuple[Experiment, dict[str, str]]:
    """``experiment`` with the defaults of its choices, less what they do not take.

    The second result are the settings that it makes in vain, each with a sentence.
    """
    refused: dict[str, str] = {}
    for choice, takes in TAKES.items():
        chosen = getattr(experiment, choice)
        taken = takes.get(chosen, {})
        for name in dict.fromkeys(name for each in takes.values() for name in each):
            if name not in taken and getattr(experiment, name) is not None:
                takers = ", ".join(each for each in takes if name in takes[each])
                refused[name] = (
                    f"{chosen or experiment.optimizer} takes no {option(name)}, which "
                    f"is for {option(choice)} {takers}"
                )
            if name not in taken or getattr(experiment, name) is None:
                changes: dict[str, Any] = {name: taken.get(name)}
                experiment = dataclasses.replace(experiment, **changes)
    return experiment, refused


def resolved(experiment: Experiment) -> Experiment:
    """``experiment`` with the defaults that its choices decide, and the tuned ones.

    Raises:
      UserError: It makes a setting that is not taken, or does not fit the others.
    """
    experiment, refused = completed(experiment)
    if refused:
        raise UserError("; ".join(refused.values()))
    name, directions = experiment.optimizer, experiment.directions
    if name == "qiaso-low-rank" and directions != "low_rank":
        raise UserError(
            f"{name} has the directions low_rank, got {directions}: take --optimizer "
            "qiaso for others"
        )
    groups = experiment.groups or 1
    if experiment.batch_size % groups:
        raise UserError(
            f"--groups must divide --batch-size, {experiment.batch_size}, into equal "
            f"slices; got {groups}"
        )
    tunes = REGISTRY[name].tunes
    if getattr(experiment, tunes) is None:
        # One rate for what is one computation.
        low_rank = directions == "low_rank"
        tuned: dict[str, Any] = {
            tunes: tuned_value("qiaso-low-rank" if low_rank else name)
        }
        experiment = dataclasses.replace(experiment, **tuned)
    return experiment


def from_stored(settings: dict[str, Any]) -> Experiment:
    """The experiment of a run, from what ``config.json`` says of it.

    Of older runs, settings that are not taken are left out, and those that came later
    are at their defaults; directions were gaussian before they were a setting.
    """
    fields: dict[str, Any] = {"directions": "gaussian"}
    for name, value in settings.items():
        if name != "data":
            fields[name] = tuple(value) if isinstance(value, list) else value
    return completed(Experiment(**fields))[0]
