"""A driver process, run as `python -m tests.faults.driver PLAN_FILE`: a sweep that stops where its plan says.

`replay` calls the real callback's hooks as Tune would, without Ray: where Tune is not what a fault is
about, a test then takes seconds. `tune` and `restore` run the real thing.
"""

from __future__ import annotations

import itertools
import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from ray.tune import Callback

from tests.faults.given import RecordingCallback, read_given

RECORD = "given.jsonl"
GATE = "go"  # the sweep waits at its pause until this file is there


@dataclass(frozen=True)
class Plan:
    """What a driver does. `folder` holds Tune's results, the trace of the hooks and the gate."""

    folder: str
    uri: str
    experiment: str
    kind: Literal["replay", "tune", "restore", "two_nodes"] = "replay"
    trials: tuple[str, ...] = ("a", "b")
    results: int = 20  # 0: until the gate is open
    pause_at: int = 0  # before this result it waits for the gate; 0 is never
    pace_s: float = 0.0  # what an iteration takes
    token: str | None = None
    ray_address: str = ""
    drain_timeout_s: float = 60.0
    watch_every_s: float = 10.0
    segment_rows: int = 20_000
    full: tuple[int, int, int] | None = None  # from result, to result, the disk is full for files above (bytes)
    local_path: str | None = None  # uploaded as artifacts at the end of each trial
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)  # in every result, beside the loss
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> Path:
        return Path(self.folder) / RECORD

    @property
    def gate(self) -> Path:
        return Path(self.folder) / GATE

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def replay(plan: Plan, callback: RecordingCallback) -> None:
    """Runs trials that exist only here; those of an earlier driver go on where its last result was safe."""
    callback.setup()
    trials = [_replayed_trial(plan, trial_id) for trial_id in plan.trials]
    earlier = read_given(plan.record).trials
    done = {trial_id: trial.last_step for trial_id, trial in earlier.items()}
    for trial in trials:
        if done.get(trial.trial_id):
            trial.latest_checkpoint_result = SimpleNamespace(metrics={"training_iteration": done[trial.trial_id]})
        callback.log_trial_start(trial)
    furthest = max(done.values(), default=0)
    for step in range(1, plan.results + 1) if plan.results else itertools.count(1):
        if not plan.results and step > furthest and plan.gate.exists():
            break
        if step == plan.pause_at:
            _wait_for(plan.gate)
        _limit_disk(plan, step)
        for number, trial in enumerate(trials, start=1):
            if step > done.get(trial.trial_id, 0):
                result = {**plan.metrics, "loss": number / step, "nested": {"step": step}, "training_iteration": step}
                callback.log_trial_result(step, trial, result)
        time.sleep(plan.pace_s)
    for trial in trials:
        callback.log_trial_end(trial)
    callback.on_experiment_end(trials)


def _limit_disk(plan: Plan, step: int) -> None:
    """Keeps the files of this process from growing: SQLite meets that as a full disk, and it needs no root."""
    if plan.full is not None and step in plan.full[:2]:
        size = plan.full[2] if step == plan.full[0] else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _wait_for(gate: Path) -> None:
    deadline = time.monotonic() + 180
    while not gate.exists():
        assert time.monotonic() < deadline, f"nobody has opened {gate}"
        time.sleep(0.02)


def _replayed_trial(plan: Plan, trial_id: str) -> Any:
    """As much of Tune's Trial as the callback looks at."""
    from pyarrow.fs import LocalFileSystem

    folder = Path(plan.folder) / "exp"
    storage = SimpleNamespace(
        storage_filesystem=LocalFileSystem(),
        experiment_fs_path=str(folder),
        experiment_dir_name="exp",
        trial_fs_path=str(folder / trial_id),
    )
    return SimpleNamespace(
        trial_id=trial_id,
        trainable_name="train",
        config={"lr": 0.1, **plan.config},
        evaluated_params={},
        latest_checkpoint_result=None,
        storage=storage,
        local_path=plan.local_path,
        error_file=None,
        get_trainable_cls=lambda: None,
        is_finished=lambda: True,
    )


def train(config: dict[str, Any]) -> None:
    """Reports with a checkpoint each time; continues from one; waits at the gate."""
    import json
    import tempfile
    import time
    from pathlib import Path

    from ray import tune

    start = 0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = json.loads((Path(folder) / "state.json").read_text())
    for step in range(start + 1, config["results"] + 1):
        while step == config["pause_at"] and not Path(config["gate"]).exists():
            time.sleep(0.02)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "state.json").write_text(json.dumps(step))
            tune.report(
                {"loss": config["number"] / step, "nested": {"x@y": 1.5}},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def run_tune(plan: Plan, callback: RecordingCallback) -> None:
    """Runs or restores a sweep through Tune, on the Ray at `plan.ray_address`."""
    import ray
    from ray import tune

    ray.init(address=plan.ray_address, log_to_driver=False, configure_logging=False)
    if plan.kind == "restore":
        tuner = tune.Tuner.restore(str(Path(plan.folder) / "results" / "exp"), trainable=train)
    else:
        tuner = _tuner(plan, callback, train)
    assert not tuner.fit().errors


def run_on_two_nodes(plan: Plan, callback: RecordingCallback) -> None:
    """Runs a sweep on the second node of a Ray cluster, kills that node at the pause, and brings up another."""
    import ray
    from ray import tune
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    away: dict[str, Any] = {"num_cpus": 1, "resources": {"away": 1}}
    doomed = cluster.add_node(**away)
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)

    def replace_node() -> None:
        cluster.remove_node(doomed, allow_graceful=False)
        cluster.add_node(**away)
        plan.gate.touch()

    trainable = tune.with_resources(train, {"CPU": 1, "away": 1})
    assert not _tuner(plan, callback, trainable, _AtResult(plan.pause_at - 1, replace_node)).fit().errors
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]


class _AtResult(Callback):
    """Does something once, in the driver's main thread: Ray starts nodes in no other."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self._step = step
        self._act: Callable[[], None] | None = act

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        if self._act is not None and result["training_iteration"] == self._step:
            act, self._act = self._act, None
            act()

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its callbacks
        return {"_step": self._step, "_act": None}


def _tuner(plan: Plan, callback: RecordingCallback, trainable: Any, *others: Callback) -> Any:
    from ray import tune

    space = {
        "number": tune.grid_search(list(range(1, len(plan.trials) + 1))),
        "results": plan.results,
        "pause_at": plan.pause_at,
        "gate": str(plan.gate),
    }
    run_config = tune.RunConfig(
        name="exp",
        storage_path=str(Path(plan.folder) / "results"),
        callbacks=[callback, *others],
        failure_config=tune.FailureConfig(max_failures=1),
        verbose=0,
    )
    return tune.Tuner(trainable, param_space=space, run_config=run_config)


def main() -> None:
    """Does what the plan says; what tracking has to say goes to standard error."""
    from drl_ray_tracking.tracking import journal, spool

    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    spool._WATCH_EVERY_S = plan.watch_every_s  # type: ignore[misc]
    journal.SEGMENT_ROWS = plan.segment_rows  # type: ignore[misc]
    callback = RecordingCallback(
        plan.record,
        plan.uri,
        experiment_name=plan.experiment,
        tracking_token=plan.token,
        save_artifact=plan.local_path is not None,
        drain_timeout_s=plan.drain_timeout_s,
        tags=plan.tags,
        names="raw",
    )
    run = {"replay": replay, "two_nodes": run_on_two_nodes}.get(plan.kind, run_tune)
    run(plan, callback)


if __name__ == "__main__":
    main()
