"""What a Tune hook costs, whatever the server does: ours and Ray's callback on the same recorded PPO results."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from ray.air.integrations.mlflow import MLflowLoggerCallback

from drl_ray_tracking import MLflowTrackingCallback
from drl_ray_tracking.trials.metrics import MetricSelection
from tests.benchmarks.replay import recorded, result_at, trials
from tests.faults.proxy import Answer, Proxy, Request, hanging, slow
from tests.network import free_port

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore")]
RESULTS = 400
TRIALS = 4
RAYS_RESULTS = 6


@pytest.fixture(scope="module")
def sample(ray_session: None) -> tuple[dict[str, Any], dict[str, Any]]:
    return recorded()


@contextmanager
def both_cores_busy() -> Iterator[None]:
    """Keeps two processes computing, as a training does."""
    import subprocess
    import sys

    busy = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10000))"]) for _ in range(2)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def replay(callback: Any, count: int, sample: tuple[dict[str, Any], dict[str, Any]], folder: Path) -> np.ndarray:
    """Returns the seconds of each result's hook; trial starts are not among them."""
    result, config = sample
    made = trials(TRIALS, config, folder)
    callback.setup()
    for trial in made:
        callback.log_trial_start(trial)
    taken = []
    for number in range(count):
        given = result_at(result, 1 + number // TRIALS)
        started = time.perf_counter()
        callback.log_trial_result(number, made[number % TRIALS], given)
        taken.append(time.perf_counter() - started)
        time.sleep(0.002)
    return np.array(taken)


def line(name: str, seconds: np.ndarray) -> None:
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    print(f"{name:34} p50 {p50:9.3f} ms   p99 {p99:9.3f} ms   max {seconds.max() * 1e3:9.3f} ms   n {len(seconds)}")


def test_hook_time_whatever_the_server_does(
    sample: tuple[dict[str, Any], dict[str, Any]], mlflow_server: str, tmp_path: Path
) -> None:
    upstream = int(mlflow_server.rsplit(":", 1)[1])
    print(
        "\nseconds of `log_trial_result` on the same PPO results, both cores kept busy; promised p50 <= 1, p99 <= 5 ms"
    )
    ours: dict[str, np.ndarray] = {}
    with ExitStack() as stack:
        addresses = {
            "server up": mlflow_server,
            "server down": f"http://127.0.0.1:{free_port()}",
            "server accepts, never answers": stack.enter_context(Proxy(upstream, hanging(threading.Event()))).address,
            "server takes 2 s a request": stack.enter_context(Proxy(upstream, slow(2.0))).address,
        }
        stack.enter_context(both_cores_busy())
        for name, address in addresses.items():
            callback = MLflowTrackingCallback(address, experiment_name=f"hooks {name}", drain_timeout_s=0.0)
            folder = tmp_path / name.replace(" ", "-").replace(",", "")
            folder.mkdir()
            ours[name] = replay(callback, RESULTS, sample, folder)
            line(f"ours, {name}", ours[name])
            callback.on_experiment_end([])
        (tmp_path / "rays").mkdir()
        rays = replay(
            MLflowLoggerCallback(mlflow_server, experiment_name="rays"), RAYS_RESULTS, sample, tmp_path / "rays"
        )
    line("Ray's, server up", rays)
    ratio = np.median(rays) / np.median(ours["server up"])
    print(f"Ray's over ours, server up, medians: {ratio:,.0f} times (promised >= 1000)")


def test_draining_a_backlog_against_bare_log_batch(
    sample: tuple[dict[str, Any], dict[str, Any]], mlflow_server: str, tmp_path: Path
) -> None:
    upstream = int(mlflow_server.rsplit(":", 1)[1])
    result, config = sample
    per_trial = 15_000 // len(MetricSelection().select(result))
    times = 1_700_000_000_000 + np.arange(per_trial)
    values = [MetricSelection().select(result_at(result, 1 + number)) for number in range(per_trial)]
    with Proxy(upstream) as proxy:
        client = MlflowClient(proxy.address)
        experiment = client.create_experiment(f"bare {random.random()}")
        runs = [client.create_run(experiment).info.run_id for _ in range(TRIALS)]
        metrics = [
            Metric(key, value, int(time_ms), step)
            for step, (time_ms, given) in enumerate(zip(times, values, strict=True))
            for key, value in given.items()
        ]
        started = time.monotonic()
        for run in runs:
            for first in range(0, len(metrics), 1000):
                client.log_batch(run, metrics=metrics[first : first + 1000])
        bare = TRIALS * len(metrics) / (time.monotonic() - started)

    port = free_port()
    callback = MLflowTrackingCallback(f"http://127.0.0.1:{port}", experiment_name="backlog", drain_timeout_s=600.0)
    made = trials(TRIALS, config, tmp_path)
    callback.setup()
    for trial in made:
        callback.log_trial_start(trial)
    for number in range(TRIALS * per_trial):
        callback.log_trial_result(number, made[number % TRIALS], result_at(result, 1 + number // TRIALS))
    assert callback.spool is not None
    target = TRIALS * len(metrics)
    batches: list[float] = []

    def noted(request: Request) -> Answer | None:
        answer = request.forward()
        of_values = int(request.headers.get("Content-Length", 0)) > 20_000  # parameters and tags are less
        if of_values and request.path.endswith("/runs/log-batch"):
            batches.append(time.monotonic())
        return answer

    with Proxy(upstream, noted, port=port):
        callback.spool.wait_for(lambda now: now.progress.points >= target, timeout_s=300)
        callback.on_experiment_end([])
    delivered = target / (batches[-1] - batches[0])
    print(
        f"\ndraining a backlog of {target:,} points: {delivered:,.0f} points/s; "
        f"bare log_batch of 1000 of them: {bare:,.0f} points/s, both through a proxy; "
        f"ratio {delivered / bare:.2f} (promised >= 0.9)"
    )
