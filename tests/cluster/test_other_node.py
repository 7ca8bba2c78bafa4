"""A trial on another node: its evaluation bars reach the driver through storage that both can see."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import instrument, names
from tests.capture.algorithms import trading_ppo

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def second_node() -> Iterator[str]:
    """The id of a raylet with two CPUs beside a head that has none: whatever runs, runs there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    worker = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    yield str(worker.node_id)
    ray.shutdown()
    cluster.shutdown()


def say_node(*, result: dict[str, Any], **_: Any) -> None:
    import ray

    result["node_id"] = ray.get_runtime_context().get_node_id()


def test_series_of_a_trial_on_another_node(second_node: str, tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    import ray
    from ray import tune
    from ray.rllib.algorithms.ppo import PPO

    results = tune.Tuner(
        PPO,
        param_space=instrument(trading_ppo().callbacks(on_train_result=say_node), evaluation_windows=3),
        run_config=tune.RunConfig(storage_path=str(tmp_path), stop={"training_iteration": 2}, verbose=0),
    ).fit()
    assert not results.errors
    (result,) = results
    assert result.metrics is not None
    assert result.metrics["node_id"] == second_node != ray.get_runtime_context().get_node_id()
    files = sorted(Path(result.path).glob(f"{names.SERIES_DIR}/*.parquet"))
    assert [path.stem for path in files] == ["iteration-000001", "iteration-000002"]
    bars = pq.read_table(files[-1])
    assert bars.num_rows == result.metrics["evaluation"]["env_runners"]["trading"]["bars"] + 3, "and three resets"
