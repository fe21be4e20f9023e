"""Hyper-parameters of kernel ridge regression, by cross-validation.

It learns the ten indicators of scikit-learn's digits from 200 images. What is searched:
the logarithms of α, γ and the constant of two of the kernels, the degree of one, and
which kernel it is, by the largest of three scores.
"""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import KFold

from benchmarks.black_box.problem import Instance, Problem

IMAGES, FOLDS = 200, 3
KERNELS = ("rbf", "polynomial", "sigmoid")
BOX = {
    "log10 alpha": (-6.0, 2.0),
    "log10 gamma": (-5.0, 1.0),
    "log10 coef0": (-3.0, 2.0),
    "degree": (1.0, 8.0),
    **dict.fromkeys(KERNELS, (-1.0, 1.0)),
}

quick = partial(
    sklearn.config_context, assume_finite=True, skip_parameter_validation=True
)
"""Without the checks of scikit-learn, which take longer than a fit."""


def model(x: np.ndarray) -> KernelRidge:
    """The one with the hyper-parameters ``x``, in the order of ``BOX``."""
    alpha, gamma, coef0 = 10.0 ** x[:3]
    return KernelRidge(
        alpha=alpha,
        gamma=gamma,
        coef0=coef0,
        degree=round(x[3]),
        kernel=KERNELS[np.argmax(x[4:])],
    )


def data(seed: int) -> tuple[np.ndarray, ...]:
    """Images and indicators to learn from, and those held out."""
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.default_rng(seed).permutation(len(images))
    images, known = images[order] / 16, np.eye(10)[labels[order]]
    return images[:IMAGES], known[:IMAGES], images[IMAGES:], known[IMAGES:]


def instance(seed: int) -> Instance:
    """Of one split of the images."""
    images, known, others, held_out = data(seed)
    folds = list(KFold(FOLDS, shuffle=True, random_state=seed).split(images))

    def validated(x: np.ndarray) -> float:
        scores = [
            model(x).fit(images[own], known[own]).score(images[left], known[left])
            for own, left in folds
        ]
        return float(np.mean(scores))

    def values(points: np.ndarray) -> np.ndarray:
        with quick(), warnings.catch_warnings():
            # A singular kernel is solved by least squares, and its score says how well.
            warnings.simplefilter("ignore")
            return np.array([-validated(x) for x in points])

    def measures(x: np.ndarray) -> dict[str, float]:
        fitted = model(x).fit(images, known)
        right = fitted.predict(others).argmax(axis=1) == held_out.argmax(axis=1)
        return {
            "R² in cross-validation": -float(values(x[None])[0]),
            "held-out R²": float(fitted.score(others, held_out)),
            "held-out accuracy": float(np.mean(right)),
        }

    lower, upper = np.transpose(list(BOX.values()))
    return Instance(
        values,
        start=np.array([-2.0, -2.0, 0.0, 3.0, 0.0, 0.0, 0.0]),
        lower=lower,
        upper=upper,
        is_bounded=True,
        integers=np.array([name == "degree" for name in BOX]),
        measures=measures,
    )


PROBLEM = Problem("kernel ridge", instance, evaluations=60, sign=-1)
