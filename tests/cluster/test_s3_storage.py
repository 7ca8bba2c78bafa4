"""A trial on a node with a filesystem of its own, Tune's storage on an S3-compatible server: everything arrives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from drl_ray_tracking import names
from drl_ray_tracking.models import Policy
from drl_ray_tracking.tracking.checkpoints import digest_of
from drl_ray_tracking.tracking.journal import journals
from drl_ray_tracking.tracking.storage import download
from tests.cluster.conftest import Head
from tests.cluster.test_nodes import can_hide_folders, node, run
from tests.tracking.test_files_tune import artifacts, read
from tests.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SWEEP = """
import os, sys
import ray
from pathlib import Path
from pyarrow.fs import S3FileSystem
from ray import tune
from ray.rllib.algorithms.ppo import PPO

server, experiment, s3, hidden = sys.argv[2:6]
os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="a-secret-nobody-may-write-down")
from drl_ray_tracking import MLflowTrackingCallback, instrument, log_artifact
from tests.capture.algorithms import trading_ppo
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
assert os.listdir(hidden), "the driver sees its folder"

def attach(*, algorithm, result, **_):
    assert not os.listdir(hidden), "the trial runs where the driver's files are not"
    note = Path(algorithm.logdir) / "note.txt"
    note.write_text("from the other node")
    log_artifact(note, "notes", trainable=algorithm)

config = instrument(trading_ppo().callbacks(on_train_result=attach), evaluation_windows=3)
config.resources(num_gpus=0, placement_strategy="PACK")
config.env_runners(num_env_runners=0)
storage = S3FileSystem(
    endpoint_override=s3, scheme="http", region="us-east-1",
    access_key="testing", secret_key="a-secret-nobody-may-write-down",
)
trainable = tune.with_resources(PPO, tune.PlacementGroupFactory([{"CPU": 1, "away": 0.5}]))
tracking = MLflowTrackingCallback(server, experiment_name=experiment, checkpoints="last", drain_timeout_s=120)
results = tune.Tuner(
    trainable,
    param_space=config,
    run_config=tune.RunConfig(
        name="my sweep", storage_path="sweeps/a team's", storage_filesystem=storage, callbacks=[tracking],
        stop={"training_iteration": 2}, verbose=0,
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True),
    ),
).fit()
assert not results.errors, results.errors
assert tracking.delivered
"""


@pytest.mark.skipif(not can_hide_folders(), reason="needs the right to give a process a filesystem view of its own")
def test_a_trial_that_shares_nothing_but_s3_with_the_driver(
    ray_head: Head,
    mlflow_server: str,
    s3: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden = tmp_path / "the drivers own"
    hidden.mkdir()
    (hidden / "file").touch()
    home = hidden / "home"
    monkeypatch.setenv("DRL_TRACK_HOME", str(home))
    head = Head(
        ray_head.dashboard, ray_head.address, {**ray_head.environment, "DRL_TRACK_HOME": str(home)}, ray_head.temp_dir
    )
    with node(head, blind_to=hidden):
        run(head, SWEEP, head.address, mlflow_server, "s3 nodes", s3, str(hidden))
    wait_until(lambda: not list(journals()), timeout_s=90, what="the courier has drawn and is gone")
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("s3 nodes")
    assert experiment is not None
    trials = client.search_runs([experiment.experiment_id], f"tags.`{names.TAG_ROLE}` = 'trial'")
    (trial,) = trials
    assert trial.info.status == "FINISHED"
    assert not [key for key in trial.data.tags if key.startswith((names.TAG_LEFT_OUT, names.TAG_DEGRADED))]
    models: dict[str, dict[int, Any]] = {names.MODEL_POINTER: {}, names.MODEL_UPLOADED: {}}
    for model in client.search_logged_models([experiment.experiment_id]):
        models[model.tags[names.TAG_MODEL_ROLE]][int(model.tags[names.TAG_CHECKPOINT_STEP])] = model
    assert len(models[names.MODEL_POINTER]) == 2
    ((step, uploaded),) = models[names.MODEL_UPLOADED].items()
    pointer = models[names.MODEL_POINTER][step]
    assert pointer.tags[names.TAG_CHECKPOINT_URI].startswith("s3://sweeps/a%20team%27s/my%20sweep/")
    assert "secret" not in str(pointer.tags)
    download(pointer.tags[names.TAG_CHECKPOINT_URI], tmp_path / "of tune")
    digest = digest_of(tmp_path / "of tune")
    assert digest == pointer.tags[names.TAG_CHECKPOINT_DIGEST] == uploaded.tags[names.TAG_CHECKPOINT_DIGEST]
    assert uploaded.tags[names.TAG_MODEL_LOADABLE] == "true"
    from drl_ray_tracking.models import load_policy

    observations = np.zeros((3, *Policy.load(tmp_path / "of tune").observation_space.shape), np.float32)
    expected = Policy.load(tmp_path / "of tune").predict(observations)
    for model in (pointer, uploaded):
        loaded = load_policy(f"models:/{model.model_id}", tracking_uri=mlflow_server)
        np.testing.assert_array_equal(loaded.predict(observations), expected)
    assert read(mlflow_server, trial.info.run_id, "notes/note.txt", tmp_path / "note") == b"from the other node"
    found = set(artifacts(mlflow_server, trial.info.run_id))
    assert {f"{names.SERIES_ARTIFACT}/{file}" for file in (names.SERIES_FILE, names.BEST_EPISODE_FILE)} <= found
    assert f"{names.PICTURES_ARTIFACT}/trades_best_episode.png" in found
    assert [path for path in found if path.startswith(f"{names.TENSORBOARD_ARTIFACT}/events.out.tfevents")]
