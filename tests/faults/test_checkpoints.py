"""Faults of checkpoints on their way into the store, with a real Tune: F21 and F22; and files of a driver that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from drl_ray_tracking import MLflowTrackingCallback, names
from drl_ray_tracking.tracking.checkpoints import digest_of
from tests.faults.conftest import the_courier, wait_until_delivered
from tests.faults.delivered import Store
from tests.faults.proxy import Answer, Proxy, Request
from tests.servers import Server
from tests.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.mlflow, pytest.mark.usefixtures("ray_session")]


def saving(config: dict[str, Any]) -> None:
    """Four results, each with a checkpoint of half a megabyte, as many as `go` says at once."""
    import random
    import tempfile
    from pathlib import Path

    for step in range(1, 5):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "weights").write_bytes(random.Random(step).randbytes(500_000))
            (Path(folder) / "step").write_text(str(step))
            tune.report({"score": float(step)}, checkpoint=tune.Checkpoint.from_directory(folder))


def fit(tmp_path: Path, tracking: MLflowTrackingCallback, kept: int | None = None) -> Any:
    run_config = tune.RunConfig(
        name="exp",
        storage_path=str(tmp_path / "results"),
        callbacks=[tracking],
        checkpoint_config=tune.CheckpointConfig(num_to_keep=kept),
        verbose=0,
    )
    (result,) = tune.Tuner(saving, run_config=run_config).fit()
    assert result.error is None
    return result


def models(store: Store, role: str) -> dict[int, Any]:
    """Step -> the model of a role; none is there twice."""
    experiment = store.client.get_experiment_by_name(store.experiment)
    assert experiment is not None
    found = store.client.search_logged_models([experiment.experiment_id], f"tags.`{names.TAG_MODEL_ROLE}` = '{role}'")
    by_step = {int(model.tags[names.TAG_CHECKPOINT_STEP]): model for model in found}
    assert len(by_step) == len(found)
    return by_step


def fetched(store: Store, model: Any, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    uri = store.client.tracking_uri
    return Path(download_artifacts(model.artifact_location, dst_path=str(folder), tracking_uri=uri))


def test_f21_an_upload_that_fails_half_way_is_a_pointer_until_it_is_whole(
    tmp_path: Path, server: Server, store: Store, proxy: Proxy
) -> None:
    cut: list[str] = []

    def fault(request: Request) -> Answer | None:
        # A model's files: the run's own artifacts pass.
        if request.method == "PUT" and "/models/m-" in request.path and len(cut) < 6:
            cut.append(request.path)
            request.body(share=0.5)
            return None
        return request.forward()

    proxy.fault = fault
    tracking = MLflowTrackingCallback(
        proxy.address, experiment_name=store.experiment, checkpoints="last", drain_timeout_s=2.0
    )
    result = fit(tmp_path, tracking)
    wait_until(lambda: len(cut) >= 2, timeout_s=60, what="uploads are cut")
    pointers = models(store, names.MODEL_POINTER)
    assert set(pointers) == {1, 2, 3, 4} and {str(model.status) for model in pointers.values()} == {"READY"}
    wait_until_delivered()
    assert len(cut) == 6
    (step, uploaded), *others = models(store, names.MODEL_UPLOADED).items()
    assert (step, others, str(uploaded.status)) == (4, [], "READY")
    assert uploaded.tags[names.TAG_MODEL_SOURCE] == models(store, names.MODEL_POINTER)[4].model_id
    digests = {
        digest_of(fetched(store, uploaded, tmp_path / "fetched")),
        digest_of(Path(result.checkpoint.path)),
        uploaded.tags[names.TAG_CHECKPOINT_DIGEST],
        models(store, names.MODEL_POINTER)[4].tags[names.TAG_CHECKPOINT_DIGEST],
    }
    assert len(digests) == 1
    (run,) = [run for _, run in store.runs().values() if run.data.tags[names.TAG_ROLE] == names.ROLE_TRIAL]
    assert run.info.status == "FINISHED" and run.data.metrics["score"] == 4.0


def test_f22_checkpoints_that_tune_deletes_before_their_upload(
    tmp_path: Path, server: Server, store: Store, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    deleted = threading.Event()

    def fault(request: Request) -> Answer | None:
        # An artifact store so slow that Tune has long moved on.
        if request.method == "PUT" and "mlflow-artifacts" in request.path:
            while not deleted.wait(0.05) and not request.closing.is_set():
                continue
        return request.forward()

    proxy.fault = fault
    tracking = MLflowTrackingCallback(
        proxy.address, experiment_name=store.experiment, checkpoints="all", drain_timeout_s=1.0
    )
    result = fit(tmp_path, tracking, kept=1)
    assert "checkpoints='all': Tune keeps 1 per trial" in caplog.text, "warned of at set-up"
    there = sorted(path.name for path in Path(result.path).glob("checkpoint_*"))
    assert len(there) == 1, "Tune has deleted the others"
    assert not models(store, names.MODEL_POINTER), "nothing of them had been read"
    deleted.set()
    wait_until_delivered()
    pointers, uploads = models(store, names.MODEL_POINTER), models(store, names.MODEL_UPLOADED)
    assert set(pointers) == {1, 2, 3, 4} and set(uploads) == {4}
    for step in (1, 2, 3):
        assert "deleted by Tune" in pointers[step].tags[names.TAG_CHECKPOINT_GONE]
        assert names.TAG_CHECKPOINT_DIGEST not in pointers[step].tags
    assert names.TAG_CHECKPOINT_GONE not in pointers[4].tags
    assert digest_of(fetched(store, uploads[4], tmp_path / "fetched")) == digest_of(Path(result.checkpoint.path))
    runs = [run for _, run in store.runs().values()]
    assert {run.info.status for run in runs} == {"FINISHED"}, "said, not crashed"
    (trial,) = [run for run in runs if run.data.tags[names.TAG_ROLE] == names.ROLE_TRIAL]
    assert sorted(point.value for point in store.client.get_metric_history(trial.info.run_id, "score")) == [1, 2, 3, 4]


KILLED = """
import os, signal, sys, time
from pathlib import Path
import ray
from ray import tune
from drl_ray_tracking import MLflowTrackingCallback, log_artifact

def train(config):
    from pathlib import Path
    Path("mine.txt").write_text("mine")
    log_artifact("mine.txt", "notes")
    tune.report({"loss": 1.0})
    Path(config["ready"]).touch()
    import time
    time.sleep(600)

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
tune.Tuner(
    train,
    param_space={"ready": sys.argv[3]},
    run_config=tune.RunConfig(
        name="exp", storage_path=sys.argv[4], verbose=0,
        callbacks=[MLflowTrackingCallback(sys.argv[1], experiment_name=sys.argv[2])],
    ),
).fit()
"""


def test_files_that_a_killed_drivers_trial_had_logged_are_delivered(
    tmp_path: Path, server: Server, store: Store
) -> None:
    ready = tmp_path / "ready"
    log = tmp_path / "driver.log"
    arguments = [server.address, store.experiment, str(ready), str(tmp_path / "results")]
    with log.open("wb") as output:
        driver = subprocess.Popen(
            [sys.executable, "-c", KILLED, *arguments], stdout=output, stderr=output, start_new_session=True
        )
    try:

        def trains() -> bool:
            assert driver.poll() is None, log.read_text(errors="replace")[-3000:]
            return ready.exists()

        wait_until(trains, timeout_s=120, what="the trial has reported and waits")
        wait_until(lambda: the_courier().progress.points > 0, timeout_s=60, what="its value is delivered")
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait(timeout=90)
    wait_until_delivered()
    (trial,) = [run for _, run in store.runs().values() if run.data.tags[names.TAG_ROLE] == names.ROLE_TRIAL]
    assert (trial.info.status, trial.data.tags[names.TAG_END_REASON]) == ("KILLED", names.END_DRIVER_DIED)
    text = Path(store.client.download_artifacts(trial.info.run_id, "notes/mine.txt", str(tmp_path))).read_text()
    assert text == "mine"
    pictures = [item.path for item in store.client.list_artifacts(trial.info.run_id, names.PICTURES_ARTIFACT)]
    assert pictures == [f"{names.PICTURES_ARTIFACT}/learning_curves.png"]
