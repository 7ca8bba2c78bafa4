"""The cells of a sweep: which trials there will be, of which algorithm, and which tags say whose they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.tune.experiment import Experiment

from drl_ray_tracking import names
from drl_ray_tracking.markets.shared import SharedSegment
from drl_ray_tracking.training.algorithms import algorithm_config
from drl_ray_tracking.training.cells import CellSearch, cell_tags, market_tags, shared_tags
from drl_ray_tracking.training.config import parse_config
from drl_ray_tracking.training.market import load_markets


@pytest.fixture(scope="module")
def sweep() -> Any:
    given = {
        "experiment": "e",
        "data": [{"source": "gym_anytrading:EURUSD"}],
        "walk_forward": {"folds": 3, "train_bars": 1000, "validation_bars": 200, "test_bars": 200, "embargo": 5},
        "agents": [{"algorithm": "PPO", "search": {"clip_param": {"grid": [0.1, 0.2]}}}, {"algorithm": "DQN"}],
        "search": {"lr": {"grid": [0.1, 0.2]}},
        "seeds": [1, 2],
        "stop": {"training_iteration": 1},
    }
    return parse_config(given, "here")


def test_every_cell_gives_its_own_trials_to_its_own_algorithm(ray_session: None, sweep: Any, tmp_path: Path) -> None:
    markets = load_markets(sweep, Path())
    settings = [algorithm_config(sweep, agent, market) for market in markets for agent in sweep.agents]
    search = CellSearch(settings)
    first = settings[0].algo_class
    search.add_configurations(
        [Experiment("e", first, storage_path=str(tmp_path), checkpoint_config=tune.CheckpointConfig())]
    )
    trials = []
    while (trial := search.next_trial()) is not None:
        trials.append(trial)
    assert search.total_samples == len(trials) == 3 * (2 * 2 * 2 + 2 * 2)
    assert {trial.trainable_name for trial in trials} == {"PPO", "DQN"}
    assert len({trial.trial_id for trial in trials}) == len(trials)
    ppo = [trial for trial in trials if trial.trainable_name == "PPO"]
    asked = {
        (one.config["env_config"]["segments"][0].fold, one.config["seed"], one.config["lr"], one.config["clip_param"])
        for one in ppo
    }
    assert len(asked) == len(ppo) == 24


def test_tags_say_whose_a_trial_is_and_the_parent_what_all_share(sweep: Any) -> None:
    markets = load_markets(sweep, Path())
    tags = [market_tags(agent, market) for market in markets for agent in sweep.agents]
    assert {(one[names.TAG_FOLD], one[names.TAG_AGENT]) for one in tags} == {
        (fold, agent) for fold in "012" for agent in ("ppo", "dqn")
    }
    shared = shared_tags(tags)
    assert shared[names.TAG_SYMBOLS] == "EURUSD"
    assert not {names.TAG_FOLD, names.TAG_AGENT, names.TAG_WINDOW_ID} & set(shared)
    segment = SharedSegment("k", "EURUSD", "train", "0", 10, tags[0])
    trial = SimpleNamespace(config={"env_config": {"segments": [segment]}})
    assert cell_tags(trial) == tags[0]
    assert cell_tags(SimpleNamespace(config={})) == {}


def drawn(folder: Path, given: dict[str, Any]) -> list[tuple[str, int, float]]:
    config = parse_config(given, "here")
    markets = load_markets(config, Path())
    settings = [algorithm_config(config, agent, market) for market in markets for agent in config.agents]
    search = CellSearch(settings, seed=config.search_seed)
    given_to_tune = Experiment(
        "e",
        settings[0].algo_class,
        storage_path=str(folder),
        num_samples=config.samples,
        checkpoint_config=tune.CheckpointConfig(),
    )
    search.add_configurations([given_to_tune])
    found = []
    while (trial := search.next_trial()) is not None:
        fold = trial.config["env_config"]["segments"][0].fold
        found.append((fold, trial.config["seed"], trial.config["lr"]))
    return found


def test_seeds_and_folds_replicate_what_is_drawn_and_the_same_file_draws_it_again(
    ray_session: None, tmp_path: Path
) -> None:
    given = {
        "experiment": "e",
        "data": [{"source": "gym_anytrading:EURUSD"}],
        "walk_forward": {"folds": 2, "train_bars": 1000, "validation_bars": 200, "test_bars": 200, "embargo": 5},
        "agents": [{"algorithm": "PPO"}],
        "search": {"lr": {"loguniform": [1.0e-5, 1.0e-3]}},
        "seeds": [1, 2, 3],
        "samples": 2,
        "stop": {"training_iteration": 1},
    }
    found = drawn(tmp_path, given)
    rates = {rate for _, _, rate in found}
    assert len(found) == 2 * 2 * 3 and len(rates) == 2
    assert all(sum(rate == one for _, _, one in found) == 2 * 3 for rate in rates)
    assert drawn(tmp_path, given) == found
    assert not rates & {rate for _, _, rate in drawn(tmp_path, {**given, "search_seed": 1})}
