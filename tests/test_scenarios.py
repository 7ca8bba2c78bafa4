"""Every scenario of configs/: loaded and built here; the short ones trained, smaller still, by their own command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from drl_ray_tracking import compare, load_runs, names
from drl_ray_tracking.analysis.budget import test_budget as spent
from drl_ray_tracking.training.algorithms import algorithm_config
from drl_ray_tracking.training.cells import CellSearch
from drl_ray_tracking.training.config import load_config
from drl_ray_tracking.training.market import load_markets
from drl_ray_tracking.training.named import look_in
from drl_ray_tracking.training.schedulers import scheduler
from tests.waiting import wait_until

CONFIGS = Path(__file__).parents[1] / "configs"
SCENARIOS = sorted(path.name for path in CONFIGS.glob("*.yaml") if path.name not in ("promote.yaml", "rules.yaml"))
TINY: dict[str, Any] = {"train_batch_size": 200, "minibatch_size": 100, "num_epochs": 1}


@pytest.fixture(autouse=True)
def _unchanged_path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_is_valid_and_every_agent_of_it_can_be_built(name: str) -> None:
    config = load_config(CONFIGS / name)
    look_in(CONFIGS)
    markets = load_markets(config, CONFIGS)
    built = [algorithm_config(config, agent, market) for market in markets for agent in config.agents]
    assert len(built) == len(config.agents) * len(config.markets) * (
        config.walk_forward.folds if config.walk_forward else 1
    )
    assert len(CellSearch(built)._settings) == len(built)
    assert (scheduler(config) is None) == (config.scheduler is None)


def test_there_is_a_scenario_of_everything_that_is_promised() -> None:
    promised = {
        "single_agent",
        "several_agents",
        "several_symbols",
        "walk_forward",
        "pbt",
        "continue_training",
        "offline",
    }
    assert promised <= {name.removesuffix(".yaml") for name in SCENARIOS}


@dataclass(frozen=True)
class Trained:
    """A store with one scenario in it, and what the command printed."""

    store: str
    experiment: str
    output: str
    runs: list[Run]
    client: MlflowClient
    folder: Path

    def of(self, role: str) -> list[Run]:
        return [run for run in self.runs if run.data.tags[names.TAG_ROLE] == role]

    @property
    def parent(self) -> Run:
        (parent,) = self.of(names.ROLE_SWEEP)
        return parent


def command(config: Path, *more: str) -> list[str]:
    """The real command."""
    return [sys.executable, "-m", "drl_ray_tracking.cli", "train", str(config), *more]


def environment(folder: Path) -> dict[str, str]:
    """A store, a journal home and a Ray of the test's own."""
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "DRL_TRACK_HOME": str(folder / "home"),
        "RAY_ADDRESS": "local",
    }


def trained(name: str, folder: Path, store: Path, *, expect: int = 0, **changes: Any) -> Trained:
    """Trains a scenario with fewer steps by the real command, beside copies of the files it names."""
    given = yaml.safe_load((CONFIGS / name).read_text())
    given.update(storage=str(folder / "results"), **changes)
    for agent in given["agents"]:
        if agent["algorithm"] == "PPO":
            agent["training"].update(TINY)
    for beside in CONFIGS.glob("*.py"):
        shutil.copy(beside, folder)
    config = folder / name
    config.write_text(yaml.safe_dump(given))
    database = folder / "mlflow.db"
    if not database.exists():
        shutil.copy(store, database)
    uri = f"sqlite:///{database}"
    done = subprocess.run(
        command(config), capture_output=True, text=True, cwd=folder, env=environment(folder), timeout=800, check=False
    )
    assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(given["experiment"])
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return Trained(uri, given["experiment"], done.stdout, list(runs), client, folder)


@pytest.mark.scenarios
@pytest.mark.timeout(900)
def test_a_walk_forward_of_three_folds_two_agents_and_two_seeds(tmp_path: Path, _empty_database: Path) -> None:
    dqn = {"algorithm": "DQN", "training": {"num_steps_sampled_before_learning_starts": 100_000}}
    done = trained(
        "walk_forward.yaml", tmp_path, _empty_database,
        agents=[{"algorithm": "PPO", "training": {}}, dqn], stop={"num_env_steps_sampled_lifetime": 200},
    )  # fmt: skip
    both, folds, parent = done.of(names.ROLE_TRIAL), done.of(names.ROLE_FOLD), done.parent
    trials = [run for run in both if run.data.tags[names.TAG_ALGORITHM] != "ensemble"]
    assert len(both) - len(trials) == 3, "an ensemble a fold, tracked like an agent"
    assert len(trials) == 3 * 2 * 2 and len(folds) == 3
    assert {run.info.status for run in done.runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in folds} == {parent.info.run_id}
    by_fold = {run.data.tags[names.TAG_FOLD]: run.info.run_id for run in folds}
    for run in both:
        assert run.data.tags["mlflow.parentRunId"] == by_fold[run.data.tags[names.TAG_FOLD]]
        assert "test/trading/total_return" in run.data.metrics
    combinations = {
        tuple(run.data.tags[tag] for tag in (names.TAG_FOLD, names.TAG_AGENT, names.TAG_SEED)) for run in trials
    }
    assert len(combinations) == 12
    assert len({run.data.tags[names.TAG_WINDOW_ID] for run in trials}) == 3, "a validation window a fold"
    for agent in ("ppo", "dqn", "ensemble-majority"):
        assert "unique out-of-sample bars" in parent.data.tags[f"{names.TAG_VERDICT}.{agent}"]
        assert f"test/{agent}/max_drawdown" in parent.data.metrics
        assert all(f"test/{agent}/total_return" in run.data.metrics for run in folds)
        assert f"{agent}: " in done.output
    place = done.client.download_artifacts(parent.info.run_id, names.OUT_OF_SAMPLE_ARTIFACT, str(tmp_path))
    assert (Path(place) / "equity.png").read_bytes().startswith(b"\x89PNG")
    bars = pd.read_csv(Path(place) / "bars.csv", parse_dates=["time"])
    for _, mine in bars.groupby("agent"):
        assert mine["time"].is_unique and mine["time"].is_monotonic_increasing
        assert len(mine) == 3 * 599
    experiment = done.client.get_experiment_by_name(done.experiment)
    looks = spent(done.client, experiment.experiment_id)
    assert sorted(window.count for window in looks.values()) == [5, 5, 5], (
        "a look for each agent and seed and one for the ensemble, a window a fold"
    )
    runs = load_runs(done.store, done.experiment)
    assert len(runs) == 15 and set(runs.runs["parent_run_id"]) == {parent.info.run_id}
    assert len(compare(runs, metric="eval/episode/return_mean", mode="max").groups) == 3


@pytest.mark.scenarios
@pytest.mark.timeout(900)
def test_several_symbols_are_one_sweep_and_each_trial_says_its_own(tmp_path: Path, _empty_database: Path) -> None:
    done = trained("several_symbols.yaml", tmp_path, _empty_database, seeds=[1],
                   stop={"training_iteration": 1}, evaluation={"interval": 1})  # fmt: skip
    trials = {run.data.tags[names.TAG_SYMBOLS]: run for run in done.of(names.ROLE_TRIAL)}
    assert set(trials) == {"GOOGL", "EURUSD"}
    assert {symbol: run.data.tags[names.TAG_TIMEFRAME] for symbol, run in trials.items()} == {
        "GOOGL": "1d",
        "EURUSD": "1h",
    }
    assert trials["GOOGL"].data.tags[names.TAG_DATA_DIGEST] != trials["EURUSD"].data.tags[names.TAG_DATA_DIGEST]
    assert names.TAG_SYMBOLS not in done.parent.data.tags, "the parent says what all trials share"
    hashes = {run.data.tags[names.TAG_CONFIG_HASH] for run in trials.values()}
    assert len(hashes) == 1, "data are no part of a configuration's identity"


@pytest.mark.scenarios
@pytest.mark.timeout(900)
def test_code_of_the_users_comes_in_by_name(tmp_path: Path, _empty_database: Path) -> None:
    done = trained("own_environment.yaml", tmp_path, _empty_database, seeds=[1], tracking={"names": "both"})
    (run,) = done.of(names.ROLE_TRIAL)
    assert run.data.tags[names.TAG_ENV] == "WaveEnv" and run.data.tags[names.TAG_SYMBOLS] == "WAVE"
    assert run.data.metrics["my_callback"] == 1.0
    assert run.data.metrics["eval/trading/max_drawdown"] > 0.0, "measured by the info keys the file names"
    gates = {"min_trades": 1, "min_deflated_sharpe": None, "max_pbo": None, "max_drawdown": 1.0}
    (tmp_path / "promote.yaml").write_text(yaml.safe_dump({"model": "wave", "cost_factor": 50.0, "gates": gates}))
    promoted = subprocess.run(
        [sys.executable, "-m", "drl_ray_tracking.cli", "promote", done.experiment, "--config",
         str(tmp_path / "promote.yaml"), "--tracking-uri", done.store, "--metric", "eval/episode/return_mean"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "COLUMNS": "200"}, check=False,
    )  # fmt: skip
    version = done.client.get_model_version("wave", "1")
    said = {gate: version.tags[f"{names.TAG_GATE}.{gate}"] for gate in ("min_trades", "min_stressed_sharpe")}
    assert said["min_trades"].startswith("passed"), promoted.stdout + promoted.stderr
    assert said["min_stressed_sharpe"].startswith("failed"), "each change of position costs 2.5 % then"
    assert promoted.returncode == 1 and "wave version 1" in promoted.stdout


@pytest.mark.scenarios
@pytest.mark.timeout(900)
def test_training_goes_on_from_a_checkpoint_and_the_runs_name_it(tmp_path: Path, _empty_database: Path) -> None:
    first = trained("single_agent.yaml", tmp_path, _empty_database, seeds=[1], stop={"training_iteration": 1})
    (checkpoint,) = (tmp_path / "results").rglob("checkpoint_000000")
    parent = first.of(names.ROLE_TRIAL)[0]
    given = yaml.safe_load((CONFIGS / "single_agent.yaml").read_text())
    # With a learning rate of zero the first evaluation is that of the weights it began with.
    agent = {"algorithm": "PPO", "training": {**given["agents"][0]["training"], "lr": 0.0}}
    second = trained(
        "continue_training.yaml", tmp_path, _empty_database, seeds=[1], start_from=str(checkpoint),
        agents=[agent], env=given["env"], stop={"training_iteration": 1}, evaluation={"interval": 1},
    )  # fmt: skip
    (run,) = second.of(names.ROLE_TRIAL)
    assert run.data.metrics["eval/episode/return_mean"] == parent.data.metrics["eval/episode/return_mean"]
    assert run.data.tags[names.TAG_CONTINUED_FROM] == str(checkpoint)
    assert run.data.tags[names.TAG_CONFIG_HASH] != parent.data.tags[names.TAG_CONFIG_HASH], (
        "no replicate of a fresh one"
    )


@pytest.mark.scenarios
@pytest.mark.timeout(900)
def test_a_population_is_trained_and_its_changes_are_on_its_runs(tmp_path: Path, _empty_database: Path) -> None:
    done = trained("pbt.yaml", tmp_path, _empty_database, samples=2, stop={"training_iteration": 4},
                   env={"window": 60})  # fmt: skip
    trials = done.of(names.ROLE_TRIAL)
    assert len(trials) == 2 and {run.info.status for run in trials} == {"FINISHED"}


@pytest.mark.scenarios
@pytest.mark.timeout(900)
def test_without_a_server_nothing_is_lost(tmp_path: Path, _empty_database: Path) -> None:
    nowhere = {"offline": True, "uri": "http://127.0.0.1:9", "drain_timeout_s": 0.1}
    done = trained(
        "offline.yaml", tmp_path, _empty_database, seeds=[1], stop={"training_iteration": 1}, tracking=nowhere
    )
    assert "Not everything is delivered yet" in done.output
    assert list((tmp_path / "home" / "journals").iterdir()), "it waits in a journal"


@pytest.mark.scenarios
@pytest.mark.timeout(900)
def test_a_sweep_that_was_cut_off_goes_on_into_the_same_runs(tmp_path: Path, _empty_database: Path) -> None:
    given = yaml.safe_load((CONFIGS / "several_symbols.yaml").read_text())
    given.update(
        seeds=[1], stop={"training_iteration": 4}, evaluation={"interval": 1}, storage=str(tmp_path / "results")
    )
    given["agents"][0]["training"].update(TINY)
    given["resources"] = {"max_concurrent": 1}
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(given))
    shutil.copy(_empty_database, tmp_path / "mlflow.db")
    first = subprocess.Popen(
        command(config), cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def reported() -> int:
        return sum(len(path.read_text().splitlines()) for path in tmp_path.glob("results/*/*/result.json"))

    wait_until(lambda: reported() >= 2 or first.poll() is not None, timeout_s=300, what="two results are there")
    first.kill()
    first.wait()
    assert reported() < 8, "it was cut off in the middle"
    (directory,) = (tmp_path / "results").iterdir()
    second = subprocess.run(
        command(config, "--resume", str(directory)),
        capture_output=True, text=True, cwd=tmp_path, env=environment(tmp_path), timeout=600, check=False,
    )  # fmt: skip
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("several-symbols").experiment_id])
    trials = [run for run in runs if run.data.tags[names.TAG_ROLE] == names.ROLE_TRIAL]
    assert len(runs) == 3 and len(trials) == 2, "no second run of anything"
    assert {run.data.tags[names.TAG_SYMBOLS] for run in trials} == {"GOOGL", "EURUSD"}
    for run in trials:
        assert run.info.status == "FINISHED" and run.data.metrics["progress/iteration"] == 4


@pytest.mark.scenarios
@pytest.mark.timeout(900)
def test_ctrl_c_looks_at_no_test_bars_and_the_sweep_goes_on_where_it_says(
    tmp_path: Path, _empty_database: Path
) -> None:
    given = yaml.safe_load((CONFIGS / "single_agent.yaml").read_text())
    given.update(seeds=[1, 2], stop={"training_iteration": 12}, evaluation={"interval": 1}, test=True)
    given.update(storage=str(tmp_path / "results"), resources={"max_concurrent": 1})
    given["agents"][0]["training"].update(TINY)
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(given))
    shutil.copy(_empty_database, tmp_path / "mlflow.db")
    first = subprocess.Popen(
        command(config), cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, start_new_session=True,
    )  # fmt: skip

    def reported() -> int:
        return sum(len(path.read_text().splitlines()) for path in tmp_path.glob("results/*/*/result.json"))

    wait_until(lambda: reported() >= 2 or first.poll() is not None, timeout_s=300, what="two results are there")
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 130, output[-3000:]
    (directory,) = (tmp_path / "results").iterdir()
    assert f"drl-track train {config} --resume {directory}" in output
    assert "Out of sample" not in output and "Verdict" not in output
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name(given["experiment"])
    assert spent(client, experiment.experiment_id) == {}
    second = subprocess.run(
        command(config, "--resume", str(directory)),
        capture_output=True, text=True, cwd=tmp_path, env=environment(tmp_path), timeout=600, check=False,
    )  # fmt: skip
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    assert [window.count for window in spent(client, experiment.experiment_id).values()] == [2]
    runs = client.search_runs([experiment.experiment_id], f"tags.`{names.TAG_ROLE}` = '{names.ROLE_TRIAL}'")
    assert len(runs) == 2 and all("test/trading/total_return" in run.data.metrics for run in runs)
