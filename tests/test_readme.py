"""The README says what is true: its code runs as it stands, its commands exist, its files are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from drl_ray_tracking import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.ray
@pytest.mark.mlflow
def test_the_two_line_adoption_runs_as_it_stands(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = tmp_path / "adopt.py"
    start = 'ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)'
    script.write_text(f"import ray\n{start}\n{code}")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("cartpole")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["drl.role"] for run in runs) == ["sweep", "trial"]
    (trial,) = [run for run in runs if run.data.tags["drl.role"] == "trial"]
    assert trial.info.run_name.startswith("ppo-CartPole-v1-")
    assert trial.data.metrics["train/episode/return_mean"] > 5
    assert trial.data.metrics["progress/iteration"] == 2


def test_the_commands_it_names_exist() -> None:
    commands = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert set(re.findall(r"`drl-track ([\w-]+)", README)) <= commands
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([\w-]+)", README, re.MULTILINE)) <= targets


def test_the_files_it_links_are_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
