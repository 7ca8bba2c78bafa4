"""Any training service, tracked: one that knows nothing of tracking, agents that fail, trainings that end badly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from drl_ray_tracking import EpisodeRecord, load_runs, names
from drl_ray_tracking.analysis.budget import test_budget as spent
from drl_ray_tracking.episodes import Conventions
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.markets.data import load_prices
from drl_ray_tracking.markets.datasets import market_segment
from drl_ray_tracking.markets.splits import chronological_split
from drl_ray_tracking.training import (
    ExperimentTrainingService,
    LiveRuns,
    RLlibAgentTrainingService,
    Rules,
    SplitDataSet,
    TradingEnv,
    TrainedAgent,
    TrainingOutcome,
    experiment_service,
)
from drl_ray_tracking.training.market import test_window as window_of_test
from drl_ray_tracking.training.rules_on_runs import judge_runs

pytestmark = pytest.mark.mlflow
PACKAGES = os.environ.get("DRL_OTHER_PACKAGES", "")
EXAMPLES = Path(__file__).parents[2] / "configs" / "examples"


def run_example(name: str, uri: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def runs_of(uri: str, experiment: str) -> dict[str, Run]:
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found), "no name twice"
    return named


def history(uri: str, run: Run, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run.info.run_id, key)]


def test_a_teams_own_training_becomes_tracked_runs(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    uri = sqlite_store()
    assert "import drl_ray_tracking" not in (EXAMPLES / "team_training.py").read_text()
    shown = run_example("track_team_training.py", uri, tmp_path)
    found = runs_of(uri, "team")
    agents = {name: run for name, run in found.items() if "-GOOGL-s" in name}
    assert sorted(agents) == sorted(f"{name}-GOOGL-s{seed}" for name in ("fast", "slow") for seed in (1, 2, 3))
    (parent,) = (run for name, run in found.items() if name not in agents)
    assert "Comparison on eval/trading/sharpe" in parent.data.tags["mlflow.note.content"]
    assert "learning_rate=0.2" in shown
    hashes = set()
    for name, run in agents.items():
        tags, rate = run.data.tags, {"fast": "0.2", "slow": "0.02"}[name[:4]]
        assert (run.info.status, tags["mlflow.parentRunId"]) == ("FINISHED", parent.info.run_id)
        assert (tags[names.TAG_SYMBOLS], tags[names.TAG_TIMEFRAME], tags[names.TAG_SEED]) == ("GOOGL", "1d", name[-1])
        assert tags[names.TAG_ALGORITHM] == "PolicyGradient"
        assert {names.TAG_DATA_DIGEST, names.TAG_WINDOW_ID, names.TAG_FEATURES} <= tags.keys()
        assert run.data.params == {
            "algorithm": "PolicyGradient", "learning_rate": rate, "total_timesteps": "5000", "seed": name[-1],
        }  # fmt: skip
        # 1400 bars make episodes of 1394 steps: four of them until 5000 steps are over, tracked while they trained.
        assert sum(value for _, value in history(uri, run, "train/episode/count")) == 4.0
        assert [value for _, value in history(uri, run, "learner/default/learning_rate")] == [float(rate)] * 3
        assert history(uri, run, "eval/episode/count") == [(5576, 1.0)]
        assert "eval/trading/sharpe" in run.data.metrics
        assert tags[names.TAG_RULES].startswith(("passed", "failed"))
        assert run.data.metrics["rules/passed"] == float(tags[names.TAG_RULES] == "passed")
        hashes.add(tags[names.TAG_CONFIG_HASH])
    assert len(hashes) == 2
    models = MlflowClient(uri).search_logged_models([parent.info.experiment_id])
    assert {model.tags[names.TAG_CHECKPOINT_URI] for model in models} == {
        str(tmp_path / "team-agents" / name) for name in agents
    }


def test_manual_research_run_again_goes_on_and_repeats_nothing(tmp_path: Path, sqlite_store: Callable[[], str]) -> None:
    uri = sqlite_store()
    first = run_example("manual_research.py", uri, tmp_path)
    assert run_example("manual_research.py", uri, tmp_path) == first
    found = runs_of(uri, "manual-research")
    assert sorted(found) == [*(f"above-average-{span}" for span in (20, 5, 60)), "moving-averages"]
    client = MlflowClient(uri)
    for name, run in found.items():
        assert run.info.status == "FINISHED"
        if name != "moving-averages":
            assert len(history(uri, run, "eval/trading/sharpe")) == 1
            assert {file.path for file in client.list_artifacts(run.info.run_id, "pictures")} == {"pictures/equity.png"}
            assert "bars: " in run.data.tags["mlflow.note.content"]


@pytest.fixture(scope="module")
def dataset() -> SplitDataSet:
    return chronological_split(load_prices("gym_anytrading:GOOGL"))


def episode(growth: float, split: str = "validation") -> EpisodeRecord:
    equity = 100.0 * np.cumprod(np.r_[1.0, 1.0 + growth + 0.01 * np.sin(np.arange(50))])
    stamps = 86400.0 * np.arange(51)
    conventions = Conventions(periods_per_year=252)
    return EpisodeRecord(1.0, 50, equity=equity, timestamp=stamps, labels={"split": split}, conventions=conventions)


class Trainer:
    """A service of a few lines: what it does while it trains, and what it then says of its agents."""

    def __init__(self, agents: Sequence[TrainedAgent], train: Callable[[], None] = lambda: None) -> None:
        self._agents, self._train = agents, train

    def create_env_and_train_agents(
        self,
        datasets: Sequence[SplitDataSet],
        *,
        seeds: Sequence[int] = (1,),
        start_from: str | None = None,
        test: bool = False,
    ) -> TrainingOutcome:
        self._train()
        return TrainingOutcome(agents=tuple(self._agents))


def agent(name: str, **changed: Any) -> TrainedAgent:
    return TrainedAgent(**{"name": name, "algorithm": "X", "symbols": ("GOOGL",), "seed": 1, **changed})


def test_what_a_service_says_of_its_agents_is_tracked_and_looks_at_tests_are_counted(
    sqlite_store: Callable[[], str], dataset: SplitDataSet
) -> None:
    uri = sqlite_store()
    said = [
        agent("good", episodes={"validation": (episode(0.001),)}, metrics={"eval/score": 3.0}, params={"lr": 1}),
        agent("bad", error="Traceback\nValueError: exploded", tags={"team": "b"}),
        agent("looked", test_metrics={"test/trading/sharpe": 0.5}, params={"timesteps": 700}),
    ]
    service = ExperimentTrainingService(
        Trainer(said), experiment="said", tracking_uri=uri, rules={"max_total_loss": 0.5}, tags={"who": "me"}
    )
    outcome = service.create_env_and_train_agents([dataset], test=True)
    found = runs_of(uri, "said")
    assert {one.name: one.run_id for one in outcome.agents} == {
        name: found[name].info.run_id for name in ("good", "bad", "looked")
    }
    good, bad, looked = (found[name] for name in ("good", "bad", "looked"))
    assert (good.info.status, bad.info.status, looked.info.status) == ("FINISHED", "FAILED", "FINISHED")
    assert good.data.metrics["eval/score"] == 3.0
    assert outcome.agents[0].metrics["eval/trading/sharpe"] == good.data.metrics["eval/trading/sharpe"]
    assert (good.data.tags[names.TAG_RULES], good.data.metrics["rules/passed"]) == ("passed", 1.0)
    assert bad.data.tags[names.TAG_RULE + ".max_total_loss"].startswith("failed: no value (there are no episodes)")
    assert (bad.data.tags[names.TAG_ERROR], bad.data.tags["team"]) == ("ValueError: exploded", "b")
    assert history(uri, looked, "test/trading/sharpe") == [(700, 0.5)]
    assert (good.data.tags["who"], outcome.delivered, outcome.experiment) == ("me", True, "said")
    tags = MlflowClient(uri).get_experiment_by_name("said").tags
    assert [key for key in tags if key.startswith(names.TAG_TEST_EVALUATIONS)], "a look at a test window counts"
    assert service.comparison is not None
    assert service.comparison.best_run.run_id == good.info.run_id
    bars = load_runs(uri, "said").series(good.info.run_id)
    assert bars["equity"].tolist() == episode(0.001).equity.tolist()  # type: ignore[union-attr]
    assert set(bars["step"]) == {0}


def test_test_results_that_nobody_asked_for_are_looks_and_those_of_several_symbols_count_on_each(
    sqlite_store: Callable[[], str], dataset: SplitDataSet
) -> None:
    uri = sqlite_store()
    other = replace(dataset, symbol="OTHER", data_digest="d" * 64)
    said = [
        agent("both", symbols=("GOOGL", "OTHER"), test_metrics={"test/trading/sharpe": 0.5}),
        agent("told", metrics={"test/score": 1.0}),
        agent("not"),
    ]
    service = ExperimentTrainingService(Trainer(said), experiment="looks", tracking_uri=uri, metric=None)
    service.create_env_and_train_agents([dataset, other], test=False)
    client = MlflowClient(uri)
    looks = spent(client, client.get_experiment_by_name("looks").experiment_id)
    windows = {window_of_test(one)[0]: count for one, count in ((dataset, 2), (other, 1))}
    assert {window: found.count for window, found in looks.items()} == windows


def test_an_interrupted_training_is_not_judged_or_compared(
    sqlite_store: Callable[[], str], dataset: SplitDataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = sqlite_store()
    monkeypatch.setattr(experiment_service, "judge_agents", lambda *given, **more: pytest.fail("it was judged"))

    class Cut:
        def create_env_and_train_agents(self, datasets: Any, **more: Any) -> TrainingOutcome:
            return TrainingOutcome(agents=(agent("half"),), tracking_uri=uri, interrupted=True)

    service = ExperimentTrainingService(Cut(), experiment="cut", tracking_uri=uri, rules={"max_total_loss": 0.5})
    assert service.create_env_and_train_agents([dataset]).interrupted
    assert service.comparison is None


def test_wrapped_environments_alone_tell_agents_apart(sqlite_store: Callable[[], str], dataset: SplitDataSet) -> None:
    uri = sqlite_store()
    live = LiveRuns()

    def play(env: Any) -> None:
        env.reset(seed=1)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(2)
            over = terminated or truncated

    def train() -> None:
        for _ in range(2):
            made = [
                live.wrap(TradingEnv({"segments": [market_segment(dataset, split)], "window": 100}))
                for split in ("train", "validation", "test")
            ]
            for env in (made[0], made[0], made[1], made[2]):
                play(env)

    service = ExperimentTrainingService(
        Trainer([agent("a"), agent("b")], train), experiment="wrapped", tracking_uri=uri, live=live, metric=None
    )
    service.create_env_and_train_agents([dataset])
    for name in ("a", "b"):
        run = runs_of(uri, "wrapped")[name]
        assert history(uri, run, "train/episode/count") == [(200, 2.0)]
        assert history(uri, run, "eval/episode/count") == [(200, 1.0)]
        assert not any(key.startswith("test/") for key in run.data.metrics)
    live.wrap(TradingEnv({"segments": [market_segment(dataset, "train")], "window": 10})).reset()  # nobody listens


def test_a_callback_alone_reads_what_a_monitor_left(sqlite_store: Callable[[], str], dataset: SplitDataSet) -> None:
    uri = sqlite_store()
    live = LiveRuns()

    def train() -> None:
        for _ in range(3):
            model = SimpleNamespace(num_timesteps=0, logger=SimpleNamespace(name_to_value={}))
            for step in range(1, 5):
                model.num_timesteps = step * 300
                infos: list[dict[str, Any]] = [{"episode": {"r": float(step), "l": 300, "t": 0.1}}, {}]
                assert live.callback({"self": model, "infos": infos}, {})
                model.logger.name_to_value = {"train/loss": 1.0 / step, "train/nan": float("nan"), "time/fps": 9}
            assert live.callback({"self": model, "infos": [{"episode": "not what SB3 says"}]}), "never hurts a training"

    # Three models were seen and two agents are told of: they stay apart.
    service = ExperimentTrainingService(
        Trainer([agent("a"), agent("b")], train), experiment="called", tracking_uri=uri, live=live, metric=None
    )
    service.create_env_and_train_agents([dataset])
    found = runs_of(uri, "called")
    assert {"a", "b", *(f"simplenamespace-{number}" for number in (1, 2, 3))} < found.keys()
    run = found["simplenamespace-2"]
    assert history(uri, run, "train/episode/count") == [(1200, 4.0)]
    assert history(uri, run, "learner/default/loss") == [(600, 1.0), (900, 0.5), (1200, 1.0 / 3)]
    assert run.info.status == "FINISHED"


@pytest.mark.skipif(not PACKAGES, reason="its pins would hurt ours: `make test-packages` runs this")
@pytest.mark.filterwarnings("ignore")
def test_stable_baselines3_itself_is_tracked_while_it_trains(
    sqlite_store: Callable[[], str], dataset: SplitDataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, PACKAGES])
    from stable_baselines3 import PPO

    uri, live = sqlite_store(), LiveRuns()

    def train() -> None:
        for seed in (1, 2):
            model = PPO("MlpPolicy", "CartPole-v1", n_steps=128, batch_size=64, n_epochs=1, seed=seed, device="cpu")
            model.learn(512, callback=live.callback)
            lengths.append([int(info["l"]) for info in model.ep_info_buffer])

    lengths: list[list[int]] = []
    service = ExperimentTrainingService(
        Trainer([agent("one"), agent("two", seed=2)], train),
        experiment="sb3", tracking_uri=uri, live=live, metric=None,
    )  # fmt: skip
    service.create_env_and_train_agents([dataset])
    for name, seen in zip(("one", "two"), lengths, strict=True):
        run = runs_of(uri, "sb3")[name]
        episodes = history(uri, run, "train/episode/count")
        assert sum(count for _, count in episodes) == len(seen) > 10
        assert episodes[-1][0] == sum(seen) <= 512
        assert [step for step, _ in history(uri, run, "learner/default/entropy_loss")] == [129, 257, 385]


def test_a_training_that_ends_badly_leaves_failed_runs(sqlite_store: Callable[[], str], dataset: SplitDataSet) -> None:
    uri = sqlite_store()
    live = LiveRuns()

    def train() -> None:
        live.callback({"self": object(), "infos": [{"episode": {"r": 1.0, "l": 7}}]})
        raise MemoryError("too much")

    service = ExperimentTrainingService(Trainer([], train), experiment="broken", tracking_uri=uri, live=live)
    with pytest.raises(MemoryError):
        service.create_env_and_train_agents([dataset])
    found = runs_of(uri, "broken")
    assert {run.info.status for run in found.values()} == {"FAILED"}
    assert found["object-1"].data.tags[names.TAG_ERROR] == "MemoryError: too much"
    assert history(uri, found["object-1"], "train/episode/count") == [(7, 1.0)]


def test_rules_that_are_wrong_are_refused_before_anything_trains() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'min_sharpe'"):
        ExperimentTrainingService(Trainer([]), experiment="x", rules={"min_sharp": 1.0})


@pytest.mark.ray
def test_rllibs_agents_and_those_of_a_service_without_ray_stand_in_one_table(
    ray_session: None, tmp_path: Path, sqlite_store: Callable[[], str], dataset: SplitDataSet
) -> None:
    uri = sqlite_store()
    rules = {"max_total_loss": 0.9, "min_trades": 100_000}
    ppo = RLlibAgentTrainingService(
        [
            {
                "algorithm": "PPO",
                "training": {"train_batch_size": 200, "minibatch_size": 100, "num_epochs": 1},
                "model": {"fcnet_hiddens": [8]},
            }
        ],
        experiment="one-table",
        stop={"training_iteration": 1},
        env={"window": 100},
        tracking={"uri": uri, "system_metrics": False},
        storage=str(tmp_path / "results"),
        rules={"max_daily_loss": 0.9},
    )
    tracked = ExperimentTrainingService(ppo, experiment="one-table", tracking_uri=uri, rules=rules, tags={"who": "me"})
    (trained,) = tracked.create_env_and_train_agents([dataset]).agents
    said = [agent(f"x-{seed}", seed=seed, episodes={"validation": (episode(0.001 * seed),)}) for seed in (1, 2, 3)]
    other = ExperimentTrainingService(Trainer(said), experiment="one-table", tracking_uri=uri, rules=rules)
    other.create_env_and_train_agents([dataset])
    found = runs_of(uri, "one-table")
    rllib = MlflowClient(uri).get_run(str(trained.run_id))
    assert rllib.data.tags["who"] == "me"
    assert rllib.data.tags[f"{names.TAG_RULE}.max_daily_loss"].startswith("not among the rules"), "the sweep's own are"
    assert rllib.data.tags[names.TAG_RULES] == found["x-1"].data.tags[names.TAG_RULES] == "failed: min_trades"
    assert (rllib.data.metrics["rules/passed"], rllib.data.metrics["rules/broken"]) == (0.0, 1.0)
    assert rllib.data.tags[names.TAG_WINDOW_ID] == found["x-1"].data.tags[names.TAG_WINDOW_ID], "the same bars"
    assert other.comparison is not None
    compared = set(other.comparison.values.index)
    assert compared == {trained.run_id, *(found[f"x-{seed}"].info.run_id for seed in (1, 2, 3))}
    assert sorted(other.comparison.groups["n_seeds"]) == [1, 3]
    judged = judge_runs(load_runs(uri, "one-table", where={names.TAG_ALGORITHM: "PPO"}), Rules(max_total_loss=1e-9))
    assert list(judged) == [trained.run_id]
    again = MlflowClient(uri).get_run(str(trained.run_id))
    assert again.data.tags[names.TAG_RULES] == "failed: max_total_loss"
    assert again.data.tags[f"{names.TAG_RULE}.min_trades"].startswith("not among the rules")
