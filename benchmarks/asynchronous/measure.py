"""Searches on a cluster of ``dask.distributed``."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from dask.distributed import Client, LocalCluster

from benchmarks.asynchronous.simulator import HANG, KILL, LOG, ellipsoid, faulty
from qiaso_jax import Asynchronous, MinimizeStatus, minimize

START = 1.5
"""Of each coordinate; the optimum is 0."""


@contextlib.contextmanager
def cluster(workers: int, threads: int) -> Iterator[Client]:
    """Processes on this machine, without a dashboard."""
    nowhere: Any = None
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            dashboard_address=nowhere,
            silence_logs=logging.CRITICAL,
            preload=["benchmarks.asynchronous.simulator", "qiaso_jax"],
        ) as processes,
        Client(processes) as client,
    ):
        yield client


def seconds_to(
    client: Client,
    share: float | None,
    seconds: float,
    seed: int,
    dimension: int,
    target: float,
    budget: int,
) -> dict[str, Any]:
    """How long a search takes to reach a value.

    Args:
      client: of the cluster.
      share: that closes a generation; ``None`` for the cluster's ``map``.
      seconds: of an evaluation, but for one in ten.
      seed: of the search.
      dimension: N.
      target: the value.
      budget: the most evaluations.
    """

    def mapped(fun, points) -> Any:
        return client.gather(client.map(fun, list(points), pure=False))

    workers = mapped if share is None else Asynchronous(client, share=share)
    began = time.perf_counter()
    result = minimize(
        ellipsoid,
        np.full(dimension, START),
        args=(seconds,),
        sigma=1.0,
        max_evaluations=budget,
        target=target,
        workers=workers,
        key=seed,
    )
    return {
        "share": share,
        "seed": seed,
        "seconds": time.perf_counter() - began,
        "evaluations": int(result.nfev),
        "generations": int(result.nit),
        "value": float(result.fun),
    }


def survived(
    client: Client,
    seconds: float,
    timeout: float,
    dimension: int,
    budget: int,
    faults: dict[int, str],
) -> dict[str, Any]:
    """A search while a process is killed, and an evaluation hangs.

    Args:
      client: of the cluster.
      seconds: of an evaluation.
      timeout: of the search; what hangs does so three times as long.
      dimension: N.
      budget: evaluations.
      faults: which file is laid after a step of this number.
    """
    with tempfile.TemporaryDirectory() as folder:

        def callback(result):
            if int(result.nit) in faults:
                (Path(folder) / faults[int(result.nit)]).touch()

        before = set(_processes(client))
        began = time.perf_counter()
        result = minimize(
            faulty,
            np.full(dimension, START),
            args=(seconds, folder, 3 * timeout),
            sigma=1.0,
            max_evaluations=budget,
            workers=Asynchronous(client, timeout=timeout),
            callback=callback,
        )
        duration = time.perf_counter() - began
        values = {float(line) for line in (Path(folder) / LOG).read_text().split()}
        unused = [name for name in (KILL, HANG) if (Path(folder) / name).exists()]
    after = set(_processes(client))
    return {
        "status": MinimizeStatus(int(result.status)).name,
        "seconds": duration,
        "budget": budget,
        "evaluations": int(result.nfev),
        "values": len(values),
        "missing": int(result.history.num_nonfinite.sum()),
        "killed": len(before - after),
        "faults_without_effect": unused,
        "least_value": min(values),
        "value_of_result": float(result.fun),
    }


def _processes(client: Client) -> list[int]:
    """Of its workers, by their numbers."""
    found: Any = client.run(os.getpid)
    return list(found.values())
