"""Reading and comparing a thousand runs over HTTP against a loop of `get_metric_history`; and the bootstrap's cost.

Both sides of a ratio run in one process against one server, the slow side on a share of the runs between two shares of
the fast one; what was scaled is printed as scaled. The runs are delivered by the tracker's own delivery, into the
server's database directly: over HTTP that alone would take an hour.
"""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drl_ray_tracking import compare, load_runs, names
from drl_ray_tracking.analysis.intervals import interquartile_mean, stratified_bootstrap_interval
from drl_ray_tracking.analysis.runset import RunSet
from drl_ray_tracking.tracking.delivery import Delivery
from drl_ray_tracking.tracking.histories import Histories
from drl_ray_tracking.tracking.journal import Event
from drl_ray_tracking.tracking.mlflow_sink import MlflowSink, bounded_requests
from drl_ray_tracking.tracking.progress import Progress
from tests.servers import Server, running
from tests.tracking.journals import numbered, opening, result, sweep, sweep_end, trial, trial_end

pytestmark = [pytest.mark.bench, pytest.mark.mlflow, pytest.mark.timeout(3600)]
RUNS = int(os.environ.get("BENCH_RUNS", "1000"))
METRICS, STEPS, SEEDS = 20, 100, 4
LOOPED = 25  # runs that the loop reads
KEYS = [names.DEFAULT_METRIC, *(f"eval/trading/m{number:02}" for number in range(1, METRICS))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("reading")
    with running(Server(folder)) as made:
        _fill(made.address, f"sqlite:///{folder}/mlflow.db", folder)
        yield made.address


def _fill(address: str, database: str, folder: Path) -> None:
    """Delivers the runs: events as a driver writes them, files through the server."""
    rng = np.random.default_rng(1)
    from mlflow.tracking import MlflowClient

    MlflowClient(address).create_experiment("bench")  # through the server, for its artifact location
    started = time.perf_counter()
    sink = _DirectSink(address, database)
    delivery = Delivery(sink, Progress(), lambda *_: None, histories=Histories(folder / "kept"))
    written = [opening(database, experiment_name="bench"), sweep()]
    with bounded_requests():
        delivery.deliver(numbered(written))
        seq = len(written)
        for number in range(RUNS):
            name = f"t{number:04}"
            tags = {names.TAG_CONFIG_HASH: f"c{number // SEEDS:04}", names.TAG_SEED: str(number % SEEDS)}
            values = rng.normal(size=(STEPS, METRICS))
            events = [trial(name, params={"lr": str(number // SEEDS)}, tags=tags)]
            events += [
                result(name, (step + 1) * 2000, **dict(zip(KEYS, values[step].tolist(), strict=True)))
                for step in range(STEPS)
            ]
            batch = [Event(seq + place, 1_000_000 + seq + place, *one) for place, one in enumerate(events, 1)]
            ending = Event(seq + len(batch) + 1, 1_000_001 + seq + len(batch), *trial_end(name))
            seq = ending.seq
            delivery.deliver([*batch, ending])
            while delivery.progress.uploads:
                delivery.upload_next({ending.seq: ending}.get)
        delivery.deliver([Event(seq + 1, 2_000_000 + seq, *sweep_end())])
    print(f"\n{RUNS} runs x {METRICS} metrics x {STEPS} steps delivered in {time.perf_counter() - started:.0f} s")


class _DirectSink(MlflowSink):
    """Writes values into the server's database, and files through the server, as a courier would."""

    def __init__(self, address: str, database: str) -> None:
        super().__init__(database)
        self._files = MlflowSink(address)

    def log_folder(self, run_id: str, folder: Path, artifact_folder: str) -> None:
        self._files.log_folder(run_id, folder, artifact_folder)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


def _read(address: str, **options: Any) -> RunSet:
    return load_runs(address, "bench", metrics=["*"], **options)


def _loop(address: str, runs: RunSet) -> dict[tuple[str, str], list[tuple[int, float]]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(address)
    return {
        (run_id, key): [(point.step, point.value) for point in client.get_metric_history(run_id, key)]
        for run_id in runs.runs.index[:LOOPED]
        for key in KEYS
    }


def test_reading_a_thousand_runs(server: str) -> None:
    def whole(**options: Any) -> RunSet:
        runs = _read(server, **options)
        compare(runs)
        return runs

    first, runs = _timed(lambda: whole(cache=False))
    assert runs.unreadable == () and len(runs.histories) == RUNS * METRICS * STEPS
    looped, points = _timed(lambda: _loop(server, runs))
    second, _ = _timed(lambda: whole(cache=False))
    ours = (first + second) / 2
    theirs = looped * RUNS / LOOPED
    read = runs.histories[runs.histories["run_id"].isin(list(runs.runs.index[:LOOPED]))]
    mine = {
        (str(run_id), str(metric)): list(zip(part["step"].tolist(), part["value"].tolist(), strict=True))
        for (run_id, metric), part in read.groupby(["run_id", "metric"], observed=True)
    }
    assert mine == {pair: sorted(found) for pair, found in points.items()}, "the very same points"
    filling, _ = _timed(whole)
    cached, again = _timed(whole)
    assert again.histories.equals(runs.histories)
    print(f"load + compare, sealed files:          {first:7.1f} s and {second:.1f} s")
    print(f"get_metric_history loop:               {theirs:7.1f} s ({looped:.1f} s for {LOOPED} runs, scaled)")
    print(f"ratio:                                 {theirs / ours:7.1f} (>= 20 promised)")
    print(f"filling this machine's copies:         {filling:7.1f} s")
    print(f"load + compare out of copies:          {cached:7.1f} s, ratio {theirs / cached:.1f}")
    if RUNS >= 1000:
        assert theirs / ours >= 20.0


def test_reading_without_sealed_files(server: str) -> None:
    """The same runs as a store without the tracker's files gives them: one request a metric, in parallel."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server)
    runs = load_runs(server, "bench", metrics=[])
    few = list(runs.runs.index[:LOOPED])
    seals = {run_id: client.get_run(run_id).data.tags[names.TAG_HISTORIES] for run_id in few}
    for run_id in few:
        client.set_tag(run_id, names.TAG_HISTORIES, "")
    try:
        unsealed = load_runs(server, "bench", metrics=[], cache=False)
        assert unsealed.source is not None
        source = unsealed.source
        parallel, _ = _timed(lambda: source.histories(few, KEYS))
        looped, _ = _timed(lambda: _loop(server, runs))
    finally:
        for run_id, seal in seals.items():
            client.set_tag(run_id, names.TAG_HISTORIES, seal)
    print(f"\n{LOOPED} runs x {METRICS} metrics from the server: {parallel:.1f} s, one after the other {looped:.1f} s")


def test_the_bulk_route_of_mlflow(server: str) -> None:
    """What MLflow's own charts use: how fast, and from where on it leaves points out."""
    import requests

    runs = load_runs(server, "bench", metrics=[])
    ids = list(runs.runs.index[:LOOPED])
    route = f"{server}/ajax-api/2.0/mlflow/metrics/get-history-bulk"

    def ask(limit: int) -> int:
        total = 0
        for key in KEYS:
            query = [("metric_key", key), ("max_results", str(limit)), *(("run_id", run_id) for run_id in ids)]
            reply = requests.get(route, params=query, timeout=60)
            reply.raise_for_status()
            total += len(reply.json()["metrics"])
        return total

    took, points = _timed(lambda: ask(25_000))
    _, cut = _timed(lambda: ask(1_000))
    looped, _ = _timed(lambda: _loop(server, runs))
    print(f"\nget-history-bulk, {LOOPED} runs a request: {took:.1f} s for {points:,} points; the loop {looped:.1f} s")
    print(f"it cuts off without a word: {cut:,} points where 1,000 a request are the limit (25,000 by default)")
    assert points == LOOPED * METRICS * STEPS and cut == 1_000 * METRICS


def test_bootstrap_of_fifty_thousand_resamples() -> None:
    scores = np.random.default_rng(2).normal(size=(10, 26))

    def interval() -> tuple[float, float]:
        return stratified_bootstrap_interval(
            scores, interquartile_mean, rng=np.random.default_rng(3), n_resamples=50_000, confidence=0.95
        )

    took, _ = _timed(interval)
    tracemalloc.start()
    interval()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"\nIQM, 50,000 stratified resamples of 10 x 26: {took:.2f} s, {peak / 1e6:.0f} MB at most")
    assert peak < 200e6
