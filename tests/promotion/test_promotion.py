"""From a trained sweep in a served store to a champion: promoted, loaded elsewhere, judged again, trained again."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

from drl_ray_tracking import names
from drl_ray_tracking.analysis.budget import count_test_evaluation, test_budget
from drl_ray_tracking.errors import ConfigurationError, DataError
from drl_ray_tracking.models import FrozenPolicy
from drl_ray_tracking.models.flavor import _load_pyfunc
from drl_ray_tracking.models.loading import load_algorithm, load_policy, load_rl_module
from drl_ray_tracking.promotion.gates import PromotionConfig, load_promotion, parse_promotion
from drl_ray_tracking.promotion.promote import Promotion, promote
from drl_ray_tracking.promotion.rebuild import market_of, trial_config
from drl_ray_tracking.promotion.reproduce import reproduce
from drl_ray_tracking.training.backtests import backtest_agent
from drl_ray_tracking.training.config import parse_config
from drl_ray_tracking.training.sweep import run_sweep

pytestmark = [
    pytest.mark.scenarios,
    pytest.mark.ray,
    pytest.mark.mlflow,
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.filterwarnings("ignore:.*Overriding environment:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*type hint:UserWarning"),  # of MLflow's own models, when it is imported
]
OPEN: dict[str, Any] = {
    "min_trades": 0,
    "min_deflated_sharpe": None,
    "max_pbo": None,
    "max_drawdown": 1.0,
    "min_stressed_sharpe": None,
}


@dataclass(frozen=True)
class Swept:
    """A small sweep of PPO on GOOGL: two learning rates, one seed."""

    uri: str
    experiment: str
    client: MlflowClient

    @property
    def experiment_id(self) -> str:
        return str(self.client.get_experiment_by_name(self.experiment).experiment_id)

    def trials(self) -> list[Any]:
        return list(self.client.search_runs([self.experiment_id], f"tags.`{names.TAG_ROLE}` = 'trial'"))


def train(folder: Path, uri: str, experiment: str, **changes: Any) -> Any:
    """Runs a small sweep from a configuration as its users write one."""
    agent = {
        "algorithm": "PPO",
        "training": {"train_batch_size": 400, "minibatch_size": 200, "num_epochs": 2},
        "model": {"fcnet_hiddens": [16]},
    }
    given = {
        "experiment": experiment,
        "data": {"source": "gym_anytrading:GOOGL"},
        "env": {"window": 100, "positions": [0, 1], "fee": 0.0005, "lookback": 5},
        "agents": [agent],
        "seeds": [1],
        "stop": {"training_iteration": 4},
        "evaluation": {"interval": 2},
        "tracking": {"uri": uri, "system_metrics": False},
        "storage": str(folder / "results"),
    }
    config = parse_config({**given, **changes}, "the test")
    return run_sweep(config, base_dir=folder, console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def swept(ray_session: None, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    folder = tmp_path_factory.mktemp("promotion")
    before = os.environ.get("DRL_TRACK_HOME")
    os.environ["DRL_TRACK_HOME"] = str(folder / "home")
    experiment = f"promotion-{time.time_ns()}"
    outcome = train(folder, mlflow_server, experiment, search={"lr": {"grid": [1.0e-4, 1.0e-2]}})
    assert outcome.delivered
    assert not outcome.errors
    yield Swept(mlflow_server, experiment, MlflowClient(mlflow_server, mlflow_server))
    if before is None:
        del os.environ["DRL_TRACK_HOME"]
    else:
        os.environ["DRL_TRACK_HOME"] = before


def promoted(swept: Swept, model: str, window: str = "validation", **gates: Any) -> Promotion:
    config = PromotionConfig.model_validate({"model": model, "window": window, "gates": {**OPEN, **gates}})
    return promote(swept.uri, swept.experiment, config)


LOADED = """
import json, sys
sys.modules["ray"] = None  # as if it were not installed
import numpy as np
import mlflow
from mlflow.tracking import MlflowClient
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_registry_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
print(json.dumps(model.predict(np.load(sys.argv[3])).tolist()))
"""


def test_the_champion_acts_elsewhere_as_its_checkpoint_and_a_failed_gate_leaves_it(
    swept: Swept, tmp_path: Path
) -> None:
    model = f"agent {time.time_ns()}"
    first = promoted(swept, model)
    assert (first.version, first.champion) == ("1", True)
    best = max(run.data.metrics["eval/trading/sharpe"] for run in swept.trials())
    assert first.candidate.value >= best, "the best of all checkpoints is no worse than the best last value"
    assert first.kpis["trading/sharpe"] == pytest.approx(first.candidate.value, rel=1e-12), "the recorded evaluation"

    refused = promoted(swept, model, min_trades=10_000)
    assert (refused.version, refused.champion) == ("2", False)
    assert "min_trades: FAILED" in refused.text
    assert "stays: version 1" in refused.text
    registered = swept.client.get_registered_model(model)
    assert registered.aliases == {"champion": "1"}
    versions = {version: swept.client.get_model_version(model, version) for version in ("1", "2")}
    assert versions["2"].description == refused.text
    assert versions["2"].tags[names.TAG_PROMOTION] == "refused"
    assert versions["2"].tags[f"{names.TAG_GATE}.min_trades"].startswith("failed: ")
    assert [version.tags[names.TAG_MODEL_VERSION] for version in versions.values()] == ["1.0.0", "1.1.0"]
    run = swept.client.get_run(first.candidate.run_id)
    for tag in (names.TAG_DATA_DIGEST, names.TAG_CONFIG_HASH, names.TAG_FEATURES, names.TAG_SWEEP_ID):
        assert versions["1"].tags[tag] == run.data.tags[tag]
    assert versions["1"].tags[names.TAG_RUN] == run.info.run_id

    policy = load_policy(first.candidate.uri)
    observations = np.random.default_rng(1).normal(size=(1000, *policy.observation_space.shape)).astype(np.float32)
    np.save(tmp_path / "observations.npy", observations)
    done = subprocess.run(
        [sys.executable, "-c", LOADED, swept.uri, f"models:/{model}@champion", str(tmp_path / "observations.npy")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    np.testing.assert_array_equal(json.loads(done.stdout.splitlines()[-1]), policy.predict(observations))

    client = swept.client
    recorded = trial_config(client, client.get_run(first.candidate.run_id))
    market = market_of(recorded, client.get_run(first.candidate.run_id))
    frozen = _load_pyfunc(str(model_files(swept, f"models:/{model}/1", tmp_path))).policy
    assert isinstance(frozen, FrozenPolicy)
    again = backtest_agent(frozen, recorded, market, "validation")
    assert again.kpis == first.kpis, "the frozen policy earns what the checkpoint did, to the last bit"


def model_files(swept: Swept, address: str, folder: Path) -> Path:
    """Downloads a model; returns where its flavour looks for the data."""
    import yaml
    from mlflow.artifacts import download_artifacts

    location = swept.client.get_model_version_download_uri(*address.removeprefix("models:/").rsplit("/", 1))
    there = Path(download_artifacts(location, dst_path=str(folder / "model"), tracking_uri=swept.uri))
    described = yaml.safe_load((there / "MLmodel").read_text())
    return there / str(described["flavors"]["python_function"]["data"])


def test_the_same_model_as_module_and_algorithm_from_every_address(swept: Swept) -> None:
    model = f"addresses {time.time_ns()}"
    candidate = promoted(swept, model).candidate
    addresses = [f"models:/{candidate.uploaded_id}", f"models:/{candidate.pointer_id}", f"models:/{model}/1"]
    weights = []
    for address in [*addresses, candidate.uri]:
        module = load_rl_module(address, tracking_uri=swept.uri)["default_policy"]
        weights.append([value.detach().numpy() for value in module.parameters()])
    for other in weights[1:]:
        for mine, theirs in zip(weights[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    algorithm = load_algorithm(addresses[0], tracking_uri=swept.uri)
    try:
        assert algorithm.iteration > 0
        known = load_rl_module(addresses[0], tracking_uri=swept.uri)["default_policy"].state_dict()
        for name, value in algorithm.get_module().state_dict().items():  # of the runner's module: no value function
            np.testing.assert_array_equal(value.numpy(), known[name].numpy())
    finally:
        algorithm.stop()
    with pytest.raises(ConfigurationError, match="tracking_uri"):
        load_policy(addresses[0])
    with pytest.raises(ConfigurationError, match="there is no folder"):
        load_policy("/nowhere/at/all")


def test_a_look_at_the_test_window_is_counted_before_it_is_taken(swept: Swept) -> None:
    for looks in (1, 2):
        done = promoted(swept, "looks", window="test")
        assert f"on the test window. This was look {looks} at it" in done.text
        (spent,) = test_budget(swept.client, swept.experiment_id).values()
        assert spent.count == looks
        assert spent.looks[-1].what.endswith(done.candidate.run_id)


def test_a_budget_that_cannot_be_read_is_not_taken_for_nothing(swept: Swept) -> None:
    experiment_id = swept.client.create_experiment(f"budget-{time.time_ns()}")
    assert test_budget(swept.client, experiment_id) == {}
    for look in range(1, 26):
        count = count_test_evaluation(swept.client, experiment_id, "abc", what="x" * 500, time_ms=look, user="ada")
        assert count == look
    spent = test_budget(swept.client, experiment_id)["abc"]
    assert (spent.count, len(spent.looks), spent.looks[-1].time_ms) == (25, 20, 25)
    swept.client.set_experiment_tag(experiment_id, f"{names.TAG_TEST_EVALUATIONS}.abc", "7")
    with pytest.raises(ConfigurationError, match="nobody knows how often"):
        test_budget(swept.client, experiment_id)


def test_a_metric_that_no_trial_has_says_so(swept: Swept) -> None:
    with pytest.raises(DataError, match="none of the 2 runs has the metric 'perf/no_such'"):
        promote(swept.uri, swept.experiment, PromotionConfig(model="m"), metric="perf/no_such")


@pytest.mark.parametrize("name", ["../../x", "x" * 300, "", " ", "a/b", "a:b", ".hidden"])
def test_a_hostile_model_name_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"a model's name is 1 to 200 letters"):
        parse_promotion({"model": name}, "the test")


def test_the_example_file_is_valid() -> None:
    config = load_promotion(Path(__file__).parents[2] / "configs" / "promote.yaml")
    assert config.gates.min_deflated_sharpe == 0.95
    with pytest.raises(ConfigurationError, match=r"gates.min_pbo"):
        parse_promotion({"model": "m", "gates": {"min_pbo": 1}}, "the test")


def test_a_run_is_trained_again_to_the_same_numbers_and_a_changed_parameter_is_seen(swept: Swept) -> None:
    run = next(run for run in swept.trials() if run.data.params["lr"] == "0.0001")
    again = reproduce(swept.uri, run.info.run_id)
    assert again.agrees
    assert len(again.rows) > 50
    assert {row.agreement for row in again.rows} == {"equal"}
    assert not [said for said in again.differences if "version" in said or "commit" in said]
    other = reproduce(swept.uri, run.info.run_id, changes={"lr": 0.05})
    assert not other.agrees
    differing = {row.metric for row in other.rows if row.agreement == "differs"}
    assert any(metric.startswith("learner/") for metric in differing)
    assert "progress/env_steps" not in differing


def test_what_training_went_on_from_is_the_versions_parent(swept: Swept, tmp_path: Path) -> None:
    model = f"parent {time.time_ns()}"
    promoted(swept, model)
    experiment = f"continued-{time.time_ns()}"
    lineage = {names.TAG_CONTINUED_FROM: f"models:/{model}/1", names.TAG_CONTINUED_RUN: "abc"}
    tracking = {"uri": swept.uri, "system_metrics": False, "tags": lineage}
    stop, evaluation = {"training_iteration": 1}, {"interval": 1}
    outcome = train(tmp_path, swept.uri, experiment, stop=stop, evaluation=evaluation, tracking=tracking)
    assert outcome.delivered and not outcome.errors
    child = promoted(Swept(swept.uri, experiment, swept.client), model)
    version = swept.client.get_model_version(model, child.version)
    assert version.tags[names.TAG_MODEL_PARENT] == f"models:/{model}/1"
    assert version.tags[names.TAG_CONTINUED_RUN] == "abc"
    assert version.tags[names.TAG_MODEL_BEFORE] == "1"
    assert f"went on from models:/{model}/1" in version.description
    first = swept.client.get_model_version(model, "1")
    assert names.TAG_MODEL_PARENT not in first.tags and first.tags[names.TAG_MODEL_BEFORE] == ""
