"""The callback's hooks, driven by hand: what they leave in a result, and that nothing leaves them raised."""

from __future__ import annotations

import functools
import math
import pickle
import subprocess
import sys
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle

from drl_ray_tracking import names
from drl_ray_tracking.capture import transport
from drl_ray_tracking.capture.callback import CaptureSettings, EpisodeCapture, learner_health
from drl_ray_tracking.capture.measured import Measurement
from drl_ray_tracking.capture.sources import FromCallable, KeyMap
from drl_ray_tracking.episodes import EpisodeRecord
from tests.capture.episodes import chunks_of, market, multi_agent_chunks

SHARPE = "evaluation/env_runners/trading/sharpe"
TRAINED = {names.ENV_RUNNERS: {names.LIFETIME_STEPS: 100}}


class Logger:
    """Collects as RLlib's MetricsLogger does, and hands out a group as a result shows it."""

    def __init__(self) -> None:
        self.values: dict[Any, list[Any]] = defaultdict(list)
        self.deleted: list[Any] = []

    def log_value(self, key: Any, value: Any, **_: Any) -> None:
        self.values[key].append(value)

    def peek(self, key: Any, default: Any = None) -> Any:
        return default

    def delete(self, *key: Any, key_error: bool = True) -> None:
        self.deleted.append(key)

    def group(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, values in self.values.items():
            names.nest(found, "/".join(key), sum(values) if key[-1] == "errors" else list(values))
        return found


def algorithm(interval: int | None = None, iteration: int = 0) -> Any:
    config = SimpleNamespace(evaluation_interval=interval, evaluation_parallel_to_training=False)
    return SimpleNamespace(config=config, iteration=iteration, eval_env_runner_group=None, logdir="unused")


def sampled(capture: EpisodeCapture, *episodes: list[Any], in_evaluation: bool = False) -> Logger:
    logger = Logger()
    runner = SimpleNamespace(config=SimpleNamespace(in_evaluation=in_evaluation))
    for chunks in episodes:
        capture.on_episode_end(
            episode=chunks[-1], prev_episode_chunks=chunks[:-1], env_runner=runner, metrics_logger=logger
        )
    capture.on_sample_end(env_runner=runner, metrics_logger=logger, samples=[])
    return logger


def settings(**changes: Any) -> CaptureSettings:
    return CaptureSettings(**{"write_series": False, **changes})


def test_training_episodes_become_numbers_and_nothing_else_stays() -> None:
    capture = EpisodeCapture(settings())
    result = {
        "training_iteration": 1,
        "env_runners": sampled(capture, chunks_of(market(5)), chunks_of(market(9))).group(),
    }
    capture.on_train_result(algorithm=algorithm(), metrics_logger=Logger(), result=result)
    runners = result["env_runners"]
    assert runners["episode"]["count"] == 2.0  # type: ignore[index]
    assert runners["trading"]["bars"] == 14.0  # type: ignore[index]
    assert names.TRANSPORT not in runners  # type: ignore[operator]
    assert result.pop(names.TRADING_SOURCE) == "info keys (equity)", "the one text: where the columns came from"
    assert all(isinstance(value, (int, float, bool)) for _, value in names.flatten(result))


def explode(_: Any) -> Any:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("measurement", "episodes", "errors"),
    [
        (Measurement(FromCallable(explode)), [chunks_of(market(3))] * 2, 2),
        (Measurement(KeyMap("nav")), [chunks_of(market(3))], 1),
        (Measurement(), [chunks_of(market(3, reward_components=3)), chunks_of([None, None, None])], 1),
        (Measurement(), [chunks_of(market(3, equity="much"))], 1),
        (Measurement(), [[SimpleNamespace()]], 1),
        (Measurement(FromCallable(explode)), [multi_agent_chunks()], 3),
    ],
)
def test_errors_on_a_worker_are_counted(measurement: Measurement, episodes: list[Any], errors: int) -> None:
    capture = EpisodeCapture(settings(measurement=measurement))
    group = sampled(capture, *episodes).group()
    assert group["capture"]["errors"] == errors
    whole = [chunks for chunks in episodes if not isinstance(chunks[-1], SimpleNamespace)]
    assert len(transport.unpack(group.get(names.TRANSPORT, {}).get(names.SUMMARIES, []))) == len(whole)


def test_each_kind_of_error_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    capture = EpisodeCapture(settings(measurement=Measurement(KeyMap("nav"))))
    sampled(capture, *[chunks_of(market(3))] * 3)
    assert len(caplog.records) == 1
    assert "no info has the equity key 'nav'; keys that are there: equity, fee" in caplog.text


def test_even_a_broken_metrics_logger_raises_nothing() -> None:
    runner = SimpleNamespace(config=SimpleNamespace(in_evaluation=False))
    capture = EpisodeCapture(settings())
    capture.on_episode_end(episode=chunks_of(market(3))[-1], env_runner=runner, metrics_logger=None)
    capture.on_sample_end(env_runner=runner, metrics_logger=None, samples=[])
    assert capture._errors.count == 1


def evaluated(capture: EpisodeCapture, algo: Any, *episodes: list[Any]) -> dict[str, Any]:
    runner = EpisodeCapture(capture._settings)
    metrics = {names.ENV_RUNNERS: sampled(runner, *episodes, in_evaluation=True).group()}
    logger = Logger()
    capture.on_evaluate_start(algorithm=algo, metrics_logger=logger)
    capture.on_evaluate_end(algorithm=algo, metrics_logger=logger, evaluation_metrics=metrics)
    assert logger.deleted == [(names.EVALUATION, names.ENV_RUNNERS, names.TRANSPORT)]
    return metrics


def finished(capture: EpisodeCapture, algo: Any, logger: Logger, **groups: Any) -> dict[str, Any]:
    """The result of one iteration; carries the objective from the one before, as RLlib's metrics state does."""
    carry = logger.values.pop(names.CARRY, None)
    algo.iteration += 1
    result = {names.ITERATION: algo.iteration, "env_runners": {}, **groups}
    if carry:
        result[names.CARRY] = carry
    capture.on_train_result(algorithm=algo, metrics_logger=logger, result=result)
    assert names.CARRY not in result
    return result


def objective_of(result: dict[str, Any]) -> tuple[Any, Any]:
    return result["evaluation"]["env_runners"]["trading"]["sharpe"], result[names.OBJECTIVE_STATE]


def test_only_fresh_evaluations_count_and_the_objective_is_always_there() -> None:
    capture, algo, logger = EpisodeCapture(settings(objective=SHARPE)), algorithm(interval=2), Logger()
    first = finished(capture, algo, logger)
    assert (
        first["evaluation"]["env_runners"]["trading"]["sharpe"]
        != first["evaluation"]["env_runners"]["trading"]["sharpe"]
    )
    assert (first[names.OBJECTIVE_STATE], first[names.EVALUATED]) == (names.OBJECTIVE_NONE, False)

    metrics = evaluated(capture, algo, chunks_of(market(30)))
    second = finished(capture, algo, logger, evaluation=metrics)
    sharpe, state = objective_of(second)
    assert (state, second[names.EVALUATED]) == (names.OBJECTIVE_FRESH, True)

    third = finished(capture, algo, logger, evaluation={"env_runners": {"num_episodes": 1, "trading": {"sharpe": 9.9}}})
    assert objective_of(third) == (sharpe, names.OBJECTIVE_CARRIED)
    assert third["evaluation"]["env_runners"] == {"trading": {"sharpe": sharpe}}

    idle = [{**info, "equity": 1e4} for info in market(5)]  # an agent that stopped trading
    fourth = finished(capture, algo, logger, evaluation=evaluated(capture, algo, chunks_of(idle)))
    value, state = objective_of(fourth)
    assert value != value
    assert state == names.OBJECTIVE_UNDEFINED


def test_an_offline_evaluation_is_the_users() -> None:
    capture = EpisodeCapture(settings())
    result = finished(
        capture, algorithm(3), Logger(), evaluation={"env_runners": {"x": 1}, "offline_eval_runners": {"y": 2}}
    )
    assert result["evaluation"] == {"offline_eval_runners": {"y": 2}}


def test_an_evaluation_that_nobody_ran_is_not_fresh() -> None:
    capture, algo = EpisodeCapture(settings(objective=SHARPE)), algorithm(interval=1)
    logger = Logger()
    sharpe, _ = objective_of(finished(capture, algo, logger, evaluation=evaluated(capture, algo, chunks_of(market(9)))))
    algo.eval_env_runner_group = SimpleNamespace(num_remote_env_runners=lambda: 2, num_healthy_remote_workers=lambda: 0)
    result = finished(capture, algo, logger, evaluation=evaluated(capture, algo))
    assert result[names.EVALUATED] is False
    assert objective_of(result) == (sharpe, names.OBJECTIVE_CARRIED)


def test_an_evaluation_by_hand_belongs_to_no_iteration() -> None:
    capture, algo = EpisodeCapture(settings()), algorithm(interval=2)
    by_hand = evaluated(capture, algo, chunks_of(market(9)))
    assert by_hand["env_runners"]["trading"]["bars"] == 9.0
    result = finished(capture, algo, Logger(), evaluation={"env_runners": {"num_episodes": 1}})
    assert result[names.EVALUATED] is False
    assert "evaluation" not in result


def test_garbage_on_the_way_costs_no_objective_and_is_counted() -> None:
    capture = EpisodeCapture(settings(objective="env_runners/trading/sharpe"))
    result = finished(
        capture, algorithm(), Logger(), env_runners={names.TRANSPORT: {names.SUMMARIES: [b"no pickle"]}, "trading": {}}
    )
    assert names.TRANSPORT not in result["env_runners"]
    assert result["env_runners"]["capture"]["errors"] == 1.0
    assert "sharpe" in result["env_runners"]["trading"]


def test_a_users_own_key_in_the_way_costs_that_kpi_only() -> None:
    capture = EpisodeCapture(settings())
    group = {**sampled(capture, chunks_of(market(5))).group(), "trading": 1.0}
    result = finished(capture, algorithm(), Logger(), env_runners=group)
    assert result["env_runners"]["trading"] == 1.0
    assert result["env_runners"]["episode"]["count"] == 1.0
    assert result["env_runners"]["capture"]["errors"] > 0


def test_a_metric_defined_in_the_users_script_travels() -> None:
    class Local:
        name = "local"

        def empty(self) -> int:
            return 0

        def of(self, record: EpisodeRecord) -> int:
            return record.length

        def merge(self, a: int, b: int) -> int:
            return a + b

        def compute(self, state: int) -> dict[str, float]:
            return {"local": float(state)}

    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(Local())
    capture = EpisodeCapture(settings(measurement=Measurement(metrics=(Local(),))))
    result = finished(capture, algorithm(), Logger(), env_runners=sampled(capture, *[chunks_of(market(4))] * 2).group())
    assert result["env_runners"]["user"]["local"] == 8.0


def test_a_worker_that_unpickles_the_callback_loads_nothing_of_the_driver() -> None:
    packed = cloudpickle.dumps(functools.partial(EpisodeCapture, CaptureSettings()))
    program = (
        f"import pickle, sys; pickle.loads({packed!r})()\n"
        "rooms = tuple(f'drl_ray_tracking.{room}' for room in ('tracking', 'analysis', 'training', 'cli'))\n"
        "bad = [name for name in sys.modules if name.split('.')[0] == 'mlflow' or name.startswith(rooms)]\n"
        "assert 'drl_ray_tracking.capture.callback' in sys.modules\n"
        "sys.exit(', '.join(bad) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("reported", "finite"),
    [
        ({"policy_loss": 0.1, "entropy": 1.0}, True),
        ({"policy_loss": math.nan, "entropy": 1.0}, False),
        ({"policy_loss": math.nan, "vf_loss": math.nan, "learning_rate": 1e-3, "steps_lifetime": 9}, False),
        ({"policy_loss": math.nan, "vf_loss": math.nan, "learning_rate": math.nan, "steps_lifetime": 9}, True),
    ],
    ids=["sound", "one loss", "diverged", "not updated in this iteration"],
)
def test_losses_that_are_not_finite(reported: dict[str, float], finite: bool) -> None:
    assert learner_health({"default_policy": reported, "__all_modules__": {}})[1] == finite
