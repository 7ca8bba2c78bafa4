"""Small sweeps of the cluster tests' own, and what is read back of their runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from drl_ray_tracking import names
from drl_ray_tracking.home import HOME_VARIABLE

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
CLOCK = ("time", "timer", "perf/", "per_s")  # what may differ between two runs of the same seeds


def prices(folder: Path) -> str:
    """Writes real prices as the CSV file a user would have; returns its name."""
    from drl_ray_tracking.markets.data import load_prices

    frame = load_prices("gym_anytrading:GOOGL").frame.iloc[:900]
    frame.to_csv(folder / "prices.csv", index_label="timestamp")
    return "prices.csv"


def small(folder: Path, experiment: str, **changes: Any) -> Path:
    """Writes the demo made small, over a file of prices: two seeds, two iterations."""
    given = yaml.safe_load(DEMO.read_text())
    given["data"] = {"source": prices(folder), "symbol": "GOOGL", "timeframe": "1d", "periods_per_year": 252}
    given.update(experiment=experiment, seeds=[1, 2], search={}, stop={"training_iteration": 2})
    given["agents"][0]["training"].update(train_batch_size=500, num_epochs=1)
    given.update(changes)
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(given))
    return config


def started(*arguments: str, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    """Starts `drl-track` and does not wait for it."""
    environment = {**os.environ, "COLUMNS": "200", HOME_VARIABLE: str(cwd / "home"), **variables}
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        if name not in variables:
            environment.pop(name, None)
    command = [sys.executable, "-m", "drl_ray_tracking.cli", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment
    )


def drl_track(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `drl-track` to its end."""
    process = started(*arguments, cwd=cwd, **variables)
    out, err = process.communicate(timeout=900)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def trials_of(client: MlflowClient, experiment: str, role: str = names.ROLE_TRIAL) -> list[Run]:
    """Returns an experiment's trials by seed, or its parents; none where it does not exist yet."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    runs = client.search_runs([found.experiment_id], f"tags.`{names.TAG_ROLE}` = '{role}'")
    return sorted(runs, key=lambda run: run.data.tags.get(names.TAG_SEED, ""))


def comparable(run: Run) -> dict[str, float]:
    """Returns a run's latest values but for what depends on the clock."""
    return {key: value for key, value in run.data.metrics.items() if not any(word in key for word in CLOCK)}
