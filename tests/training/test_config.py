"""The sweep's configuration: what is allowed, and that every problem is said at once with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.config import SweepConfig, dump_config, load_config, parse_config
from drl_ray_tracking.training.config_checks import notes_on
from drl_ray_tracking.training.schedulers import scheduler

NO_SWEEPS = {"promote.yaml", "rules.yaml"}  # gates and rules, with loaders and tests of their own
CONFIGS = sorted(path for path in (Path(__file__).parents[2] / "configs").glob("*.yaml") if path.name not in NO_SWEEPS)


def minimal(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "experiment": "e",
        "data": {"source": "gym_anytrading:GOOGL"},
        "agents": [{"algorithm": "PPO"}],
        "stop": {"training_iteration": 1},
    }
    return {**given, **changes}


@pytest.mark.parametrize("path", CONFIGS, ids=[path.name for path in CONFIGS])
def test_every_config_that_is_shipped_is_valid(path: Path) -> None:
    assert isinstance(load_config(path), SweepConfig)


def test_the_minimal_configuration_gets_three_seeds_and_an_evaluation_objective() -> None:
    config = parse_config(minimal(), "here")
    assert config.seeds == [1, 2, 3]
    assert config.objective.metric == "eval/trading/sharpe"
    assert config.evaluation.interval == 1


def test_all_problems_are_said_at_once_with_their_paths() -> None:
    given = minimal(
        agents=[{"algoritm": "PPO"}], seeds=[], tracking={"ofline": True}, resources={"env_runners": -1}, exprimnt="x"
    )
    with pytest.raises(ConfigurationError) as caught:
        parse_config(given, "demo.yaml")
    message = str(caught.value)
    assert message.startswith("demo.yaml: 6 problem(s)")
    assert "agents[0].algoritm: unknown key (did you mean 'algorithm'?)" in message
    assert "agents[0].algorithm: is needed and missing" in message
    assert "tracking.ofline: unknown key (did you mean 'offline'?)" in message
    assert "exprimnt: unknown key (did you mean 'experiment'?)" in message
    assert "resources.env_runners" in message and "(given -1)" in message
    assert "seeds" in message


def test_a_key_that_resembles_nothing_lists_what_is_allowed() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.qqq: unknown key; allowed: source, symbol"):
        parse_config(minimal(data={"source": "x.csv", "qqq": 1}), "here")


def test_one_dimension_takes_exactly_one_kind() -> None:
    with pytest.raises(ConfigurationError, match=r"search\.lr: give exactly one of grid, choice.*\['grid', 'choice'\]"):
        parse_config(minimal(search={"lr": {"grid": [1], "choice": [2]}}), "here")


def test_fractions_and_date_ranges_do_not_mix() -> None:
    with pytest.raises(ConfigurationError, match="split: train, validation and test must all be fractions"):
        parse_config(minimal(split={"train": 0.5, "validation": ["2015-01-01", "2016-01-01"], "test": 0.2}), "here")


def test_dates_are_kept_as_yaml_reads_them() -> None:
    ranges = yaml.safe_load("{train: [2010-01-01, 2014-01-01], validation: [2014-01-05, 2016-01-01], test: [x, y]}")
    assert parse_config(minimal(split=ranges), "here").split.by_date


@pytest.mark.parametrize(("text", "number"), [("1e-4", 1e-4), ("-2.5E3", -2500.0), ("3e+2", 300.0)])
def test_exponents_without_a_point_are_numbers(text: str, number: float) -> None:
    given = yaml.safe_load(f"lr: {{grid: [{text}]}}")
    assert parse_config(minimal(search=given), "here").search["lr"].grid == [number]


def test_texts_that_only_look_like_numbers_stay_texts() -> None:
    config = parse_config(minimal(tracking={"tags": {"commit": "1e4f", "note": "e5"}}), "here")
    assert config.tracking.tags == {"commit": "1e4f", "note": "e5"}


def test_a_missing_file_and_broken_yaml_are_one_sentence_each(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1, 2\nb: 3")
    with pytest.raises(ConfigurationError, match=r"broken\.yaml is not valid YAML: .*line 2"):
        load_config(broken)
    broken.write_text("- just\n- a list")
    with pytest.raises(ConfigurationError, match="holds list, a mapping"):
        load_config(broken)


WALK = {"folds": 2, "train_bars": 500, "validation_bars": 100, "test_bars": 100}


def test_a_list_of_markets_is_taken_apart_and_survives_being_written() -> None:
    given = minimal(data=[{"source": "gym_anytrading:GOOGL"}, {"source": "gym_anytrading:EURUSD"}])
    config = parse_config(given, "here")
    assert [market.source for market in config.markets] == ["gym_anytrading:GOOGL", "gym_anytrading:EURUSD"]
    again = parse_config(yaml.safe_load(dump_config(config, Path())), "again")
    assert again.markets == config.markets


def test_a_walk_forward_survives_being_written_and_wants_its_test() -> None:
    config = parse_config(minimal(walk_forward=WALK), "here")
    assert config.wants_test
    again = parse_config(yaml.safe_load(dump_config(config, Path())), "again")
    assert again.walk_forward == config.walk_forward and again.wants_test
    assert not parse_config(minimal(walk_forward={**WALK, "test": False}), "here").wants_test


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"walk_forward": WALK, "split": {"train": 0.6}}, "`split` or `walk_forward`, not both"),
        ({"agents": [{"algorithm": "PPO"}, {"algorithm": "PPO"}]}, "agents need names of their own; ppo is several"),
        ({"ensembles": [{"vote": "majority", "agents": ["sac"]}]}, "names sac; agents are ppo"),
        ({"ensembles": [{"vote": "loudest"}]}, r"ensembles\[0\].vote"),
        ({"walk_forward": WALK, "tracking": {"offline": True}}, "counted in the store"),
        ({"scheduler": {"kind": "pbt"}}, "pbt needs `mutate`"),
        ({"scheduler": {"kind": "asha", "mutate": {"lr": {"grid": [1]}}}}, "asha changes nothing"),
        (
            {"walk_forward": WALK, "scheduler": {"kind": "pbt", "mutate": {"lr": {"grid": [1, 2]}}}},
            "pbt copies trials onto each other",
        ),
        (
            {"walk_forward": WALK, "scheduler": {"kind": "asha"}},
            "asha stops the trials that are worse than others: give it one market and no folds",
        ),
        ({"scheduler": {"kind": "asha", "interval": 2}}, "scheduler.interval is pbt's; asha does not know it"),
        (
            {"scheduler": {"kind": "pbt", "mutate": {"lr": {"grid": [1, 2]}}, "grace_period": 3}},
            "scheduler.grace_period is asha's; pbt does not know it",
        ),
        (
            {"scheduler": {"kind": "asha", "grace_period": 9}, "stop": {"progress/iteration": 8}},
            "scheduler.grace_period is 9, but trials end after 8 iterations",
        ),
        (
            {"stop": {"training_iterations": 8}},
            r"stop.training_iterations: no result has .*did you mean 'training_iter",
        ),
        ({"stop": {"score": 8}}, "no result has 'score'; allowed: training_iteration, num_env_steps_sampled_lifetime"),
        ({"objective": {"metric": "eval/trading/sharp"}}, "objective.metric: no result has .*'eval/trading/sharpe'"),
        (
            {"objective": {"metric": "evaluation/env_runners/trading/sharp"}},
            "objective.metric: no result has",
        ),
        (
            {"agents": [{"algorithm": "PPO", "training": {"num_env_runners": 2}}]},
            "agents, ppo: training.num_env_runners would be overwritten: it is set by `resources.env_runners`",
        ),
        ({"search": {"seed": {"grid": [1, 2]}}}, "search.seed would be overwritten: it is set by `seeds`"),
        ({"env_class": "my_env:Env", "evaluation": {"window": 20}}, "evaluation.window cuts the windows of the built"),
        ({"ensembles": [{"vote": "mean"}], "seeds": [1]}, r"ensembles\[0\] has 1 member: give it at least two"),
        (
            {"ensembles": [{"vote": "mean"}], "search": {"env/fee": {"grid": [0, 1]}}},
            r"ensembles need one environment for all members: search no key of `env/` \(env/fee\)",
        ),
        (
            {"ensembles": [{"vote": "majority"}], "env": {"actions": "continuous"}},
            "a majority needs discrete actions",
        ),
        ({"walk_forward": {**WALK, "fold": 3}}, "walk_forward.fold: unknown key .did you mean 'folds'"),
    ],
)
def test_what_does_not_fit_together_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_config(minimal(**changes), "here")


def test_rules_are_a_key_of_a_sweep_and_are_checked_with_it() -> None:
    minimal = {
        "experiment": "e",
        "data": {"source": "gym_anytrading:GOOGL"},
        "agents": [{"algorithm": "PPO"}],
        "stop": {"training_iteration": 1},
    }
    given = parse_config({**minimal, "rules": {"max_daily_loss": 0.05}}, "x.yaml")
    assert given.rules is not None and given.rules.on == {"max_daily_loss": 0.05}
    assert parse_config(yaml.safe_load(dump_config(given, Path())), "dumped").rules == given.rules
    with pytest.raises(ConfigurationError, match=r"rules\.max_daily_los: unknown key \(did you mean 'max_daily_loss'"):
        parse_config({**minimal, "rules": {"max_daily_los": 0.05}}, "x.yaml")


def test_a_recorded_configuration_may_hold_what_is_refused_today() -> None:
    given = minimal(env_class="my_env:Env", evaluation={"window": 20}, stop={"score": 1.0})
    assert parse_config(given, "sweep.yaml", recorded=True).evaluation.window == 20


@pytest.mark.parametrize(
    "key",
    ["progress/env_steps", "time_total_s", "eval/trading/by_symbol/GOOGL/sharpe", "train/episode/return_mean",
     "evaluation/env_runners/trading/max_drawdown", "env_runners/episode_return_mean", "eval/reward/profit",
     "learner/default_policy/entropy"],
)  # fmt: skip
def test_trials_may_stop_by_whatever_results_have(key: str) -> None:
    assert parse_config(minimal(stop={key: 1.0}), "here").stop == {key: 1.0}


def test_a_callback_of_the_users_may_report_what_trials_stop_by() -> None:
    assert parse_config(minimal(stop={"score": 1.0}, callbacks=["mine:Scores"]), "here")
    with pytest.raises(ConfigurationError, match="did you mean 'training_iteration'"):
        parse_config(minimal(stop={"training_iterations": 1}, callbacks=["mine:Scores"]), "here")


def test_a_written_scheduler_is_read_again() -> None:
    given = parse_config(minimal(scheduler={"kind": "asha", "grace_period": 1}), "here")
    assert parse_config(yaml.safe_load(dump_config(given, Path())), "again").scheduler == given.scheduler


def test_a_grace_period_shorter_than_the_evaluation_interval_is_said() -> None:
    given = parse_config(minimal(scheduler={"kind": "asha"}, evaluation={"interval": 4}), "here")
    (note,) = notes_on(given)
    assert "grace_period is 1" in note and "every 4 iterations" in note
    assert not notes_on(parse_config(minimal(scheduler={"kind": "asha"}), "here"))


def test_agents_may_compete_under_asha() -> None:
    agents = [{"algorithm": "PPO", "name": "small"}, {"algorithm": "PPO", "name": "large"}]
    assert parse_config(minimal(scheduler={"kind": "asha"}, agents=agents), "here").scheduler is not None


@pytest.mark.parametrize(
    ("stop", "longest"), [({"progress/iteration": 300}, 300), ({"num_env_steps_sampled_lifetime": 1e6}, 10**9)]
)
def test_asha_lets_the_best_train_to_their_end(stop: dict[str, float], longest: int) -> None:
    made = scheduler(parse_config(minimal(scheduler={"kind": "asha"}, stop=stop), "here"))
    assert made._max_t == longest
