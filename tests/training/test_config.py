"""The sweep's configuration: what is allowed, and that every problem is said at once with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.config import SweepConfig, load_config, parse_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


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
