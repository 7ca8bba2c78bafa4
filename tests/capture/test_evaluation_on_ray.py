"""On a real Ray: each evaluation appears once, at its own iteration, and its bars are on the disk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.capture.instrument import instrument
from tests.capture.algorithms import BARS, WINDOW, small_ppo, trading_ppo

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

OBJECTIVE = "eval/episode/return_mean"


def objective_of(result: dict[str, Any]) -> float:
    value = result["evaluation"]["env_runners"]["episode"]["return_mean"]
    assert isinstance(value, float)
    return value


def evaluated(result: dict[str, Any]) -> bool:
    return "count" in result.get("evaluation", {}).get("env_runners", {}).get("episode", {})


def test_every_third_iteration_and_through_checkpoints(ray_session: None, tmp_path: Path) -> None:
    config = instrument(small_ppo().evaluation(evaluation_interval=3, evaluation_duration=4), objective=OBJECTIVE)
    algorithm = config.build_algo()
    results = [algorithm.train() for _ in range(4)]
    assert [evaluated(result) for result in results] == [False, False, True, False]
    assert [result[names.EVALUATED] for result in results] == [False, False, True, False]
    assert [result[names.OBJECTIVE_STATE] for result in results] == [
        names.OBJECTIVE_NONE, names.OBJECTIVE_NONE, names.OBJECTIVE_FRESH, names.OBJECTIVE_CARRIED
    ]  # fmt: skip
    assert [math.isnan(objective_of(result)) for result in results] == [True, True, False, False]
    scored = objective_of(results[2])
    assert objective_of(results[3]) == scored
    assert results[2]["evaluation"]["env_runners"]["episode"]["count"] == 4.0
    assert results[2]["evaluation"][names.WEIGHTS_STEP] == results[2][names.LIFETIME_STEPS]
    assert not [path for path, _ in names.flatten(results[3]) if "drl_" in path]

    checkpoint = algorithm.save_to_path(str(tmp_path / "instrumented"))
    algorithm.stop()

    restored = type(algorithm).from_checkpoint(checkpoint)
    fifth, sixth = restored.train(), restored.train()
    restored.stop()
    assert (objective_of(fifth), fifth[names.OBJECTIVE_STATE]) == (scored, names.OBJECTIVE_CARRIED)
    assert fifth[names.LIFETIME_STEPS] > results[3][names.LIFETIME_STEPS]
    assert (evaluated(fifth), evaluated(sixth)) == (False, True)

    bare = small_ppo().build_algo()
    bare.restore_from_path(checkpoint)
    assert bare.train()["training_iteration"] == 5
    plain = bare.save_to_path(str(tmp_path / "bare"))
    bare.stop()

    tracked = config.copy(copy_frozen=False).build_algo()
    tracked.restore_from_path(plain)
    result = tracked.train()
    tracked.stop()
    assert (result["training_iteration"], evaluated(result)) == (6, True)
    assert result["env_runners"]["episode"]["count"] > 0


def sharpe_of(rows: list[dict[str, Any]]) -> float:
    by_episode: dict[int, list[float]] = {}
    for row in rows:
        by_episode.setdefault(row["episode"], []).append(row["equity"])
    returns = np.concatenate([np.diff(equity) / np.array(equity[:-1]) for equity in by_episode.values()])
    return float(returns.mean() / returns.std(ddof=1) * math.sqrt(252.0))


@pytest.mark.parametrize("parallel", [False, True])
def test_every_iteration_over_enumerated_windows(ray_session: None, parallel: bool) -> None:
    config = trading_ppo()
    if parallel:
        config.evaluation(evaluation_num_env_runners=1, evaluation_parallel_to_training=True)
    windows = BARS // WINDOW
    algorithm = instrument(config, evaluation_windows=windows).build_algo()
    results = [algorithm.train() for _ in range(3)]
    folder = Path(algorithm.logdir) / names.SERIES_DIR
    algorithm.stop()
    steps = [result[names.LIFETIME_STEPS] for result in results]
    assert [result["evaluation"][names.WEIGHTS_STEP] for result in results] == ([0, *steps[:-1]] if parallel else steps)
    assert sorted(file.name for file in folder.iterdir()) == [f"iteration-{i:06d}.parquet" for i in (1, 2, 3)]
    for iteration, result in enumerate(results, start=1):
        evaluation = result["evaluation"]
        assert result[names.EVALUATED]
        assert (evaluation["windows_repeated"], evaluation["windows_missing"]) == (0, 0)
        assert evaluation["env_runners"]["episode"]["count"] == windows
        assert evaluation["env_runners"]["trading"]["bars"] == BARS
        rows = pq.read_table(folder / f"iteration-{iteration:06d}.parquet").to_pylist()
        assert [row["window"] for row in rows if row["bar"] == 0] == ["0", "1", "2"]
        assert {row["step"] for row in rows} == {evaluation[names.WEIGHTS_STEP]}
        sharpe = evaluation["env_runners"]["trading"].get("sharpe")
        if sharpe is not None:  # an untrained policy may not have traded
            assert sharpe_of(rows) == pytest.approx(sharpe, rel=1e-9)
    assert any("sharpe" in result["evaluation"]["env_runners"]["trading"] for result in results)
