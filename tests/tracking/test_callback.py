"""What the callback is by itself; whole sweeps are in test_callback_tune.py."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune import Callback

from drl_ray_tracking import MLflowTrackingCallback, names
from drl_ray_tracking.errors import ConfigurationError, JournalError
from drl_ray_tracking.tracking import courier_process, courier_status, events, introductions, preflight
from drl_ray_tracking.tracking.journal import JournalWriter, journals, read_events
from drl_ray_tracking.tracking.remedies import remedy
from drl_ray_tracking.tracking.spool import Spool

URI = "http://127.0.0.1:9"


@pytest.fixture
def no_courier(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """Starts no process and waits for none; what it was given is kept."""
    started: list[dict[str, str]] = []
    spools: list[Spool] = []
    open_spool = Spool.open

    def remembered(*arguments: Any, **keywords: Any) -> Spool:
        spools.append(open_spool(*arguments, **keywords))
        return spools[-1]

    monkeypatch.setattr(courier_process, "start", lambda directory, credentials: started.append(credentials))
    monkeypatch.setattr(preflight, "_VERDICT_WAIT_S", 0.0)
    monkeypatch.setattr(Spool, "open", remembered)
    yield started
    for spool in spools:  # their watchdogs would start real couriers once `courier_process.start` is back
        spool.abandon()


def fake_trial(tmp_path: Path, trial_id: str = "t1", **config: Any) -> Any:
    """As much of Tune's Trial as the callback looks at; only for what needs no Tune."""
    storage = SimpleNamespace(
        storage_filesystem=LocalFileSystem(),
        experiment_fs_path=str(tmp_path / "exp"),
        experiment_dir_name="exp",
        trial_fs_path=str(tmp_path / "exp" / trial_id),
    )
    return SimpleNamespace(
        trial_id=trial_id,
        trainable_name="train_fn",
        config=config,
        evaluated_params={},
        latest_checkpoint_result=None,
        storage=storage,
        local_path=None,
        error_file=None,
        get_trainable_cls=lambda: None,
        is_finished=lambda: True,
    )


def written() -> list[Any]:
    (directory,) = journals()
    return read_events(directory, after=0, limit=100)


def test_every_keyword_of_rays_callback_is_there_with_its_default() -> None:
    theirs = inspect.signature(MLflowLoggerCallback.__init__).parameters
    ours = inspect.signature(MLflowTrackingCallback.__init__).parameters
    assert {name: (own.kind, own.default) for name, own in ours.items() if name in theirs} == {
        name: (parameter.kind, parameter.default) for name, parameter in theirs.items()
    }
    assert issubclass(MLflowTrackingCallback, MLflowLoggerCallback)


def test_a_callback_is_pickled_without_its_secrets() -> None:
    made = MLflowTrackingCallback("http://user:hunter22@127.0.0.1:9", tracking_token="t0k3n-t0k3n", experiment_name="e")
    content = pickle.dumps(made)
    assert b"hunter22" not in content
    assert b"t0k3n" not in content
    again: MLflowTrackingCallback = pickle.loads(content)
    assert again.tracking_uri == URI
    assert again.experiment_name == "e"
    assert "hunter22" not in repr(vars(again))


def test_a_running_callback_can_be_pickled(no_courier: list[dict[str, str]], tmp_path: Path) -> None:
    made = MLflowTrackingCallback(URI)
    made.setup()
    made.log_trial_start(fake_trial(tmp_path))
    again = pickle.loads(pickle.dumps(made))
    assert again.sweep_id is None
    assert again.spool is None
    made.setup()  # lets go of the first journal


def test_secrets_reach_the_courier_and_nothing_else(
    no_courier: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_TOKEN", "br0ker-t0ken")
    made = MLflowTrackingCallback(
        "http://user:hunter22@127.0.0.1:9",
        tracking_token="t0k3n-t0k3n",
        tags={"api_key": "tagsecret", "note": "uses br0ker-t0ken"},
    )
    made.setup()
    trial = fake_trial(tmp_path, password="configsecret", url="db://u:urlsecret@h", key="br0ker-t0ken", lr=0.1)
    trial.error_file = str(tmp_path / "error.txt")
    Path(trial.error_file).write_text("Traceback\nValueError: t0k3n-t0k3n was refused\n")
    made.log_trial_start(trial)
    made.log_trial_end(trial, failed=True)
    assert no_courier == [
        {
            "MLFLOW_TRACKING_USERNAME": "user",
            "MLFLOW_TRACKING_PASSWORD": "hunter22",
            "MLFLOW_TRACKING_TOKEN": "t0k3n-t0k3n",
        }
    ]
    kinds = [event.kind for event in written()]
    assert kinds == [events.OPEN, events.SWEEP, events.TRIAL, events.TRIAL_END]
    (directory,) = journals()
    files = [path for folder in (directory, tmp_path / "exp") for path in folder.rglob("*") if path.is_file()]
    for secret in (b"hunter22", b"t0k3n", b"tagsecret", b"configsecret", b"urlsecret", b"br0ker"):
        assert not [path for path in files if secret in path.read_bytes()], secret


def test_an_error_of_our_own_stays_here(
    no_courier: list[dict[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = MLflowTrackingCallback(URI)
    made.setup()
    trial = fake_trial(tmp_path)
    made.log_trial_start(trial)
    for step in (1, 2):
        made.log_trial_result(step, trial, None)  # type: ignore[arg-type]
    made.log_trial_result(3, trial, {"loss": 1.0, "training_iteration": 3})
    assert len([record for record in caplog.records if "training goes on" in record.message]) == 1
    assert written()[-1].payload == {"step": 3, "metrics": {"loss": 1.0, "training_iteration": 3.0}}


def test_a_trial_whose_start_could_not_be_written_is_announced_later(
    no_courier: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MLflowTrackingCallback(URI)
    made.setup()
    trial = fake_trial(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(introductions, "identify_trial", lambda *arguments: 1 / 0)
        made.log_trial_start(trial)
    made.log_trial_result(1, trial, {"loss": 1.0})
    assert [event.kind for event in written()] == [events.OPEN, events.SWEEP, events.TRIAL, events.RESULT]


def test_a_trial_that_begins_and_fails_on_a_full_disk_has_a_run(
    no_courier: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MLflowTrackingCallback(URI)
    made.setup()
    first, trial = fake_trial(tmp_path), fake_trial(tmp_path, "t2")
    made.log_trial_start(first)
    with monkeypatch.context() as full:
        full.setattr(JournalWriter, "append", _no_room)
        made.log_trial_start(trial)
        made.log_trial_end(trial, failed=True)
    made.log_trial_result(1, first, {"loss": 1.0})
    assert [(event.kind, event.trial) for event in written()[2:]] == [
        (events.TRIAL, "t1"), (events.TRIAL, "t2"), (events.TRIAL_END, "t2"), (events.RESULT, "t1"),
    ]  # fmt: skip
    assert not made._errors


def _no_room(*arguments: Any, **keywords: Any) -> int:
    raise JournalError("database or disk is full")


def test_a_sweep_is_tracked_where_its_context_cannot_be_told(
    no_courier: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introductions, "context_tags", lambda: 1 / 0)
    made = MLflowTrackingCallback(URI)
    made.setup()
    made.log_trial_start(fake_trial(tmp_path))
    assert [event.kind for event in written()] == [events.OPEN, events.SWEEP, events.TRIAL]


def test_a_trial_that_starts_again_sends_what_changed(no_courier: list[dict[str, str]], tmp_path: Path) -> None:
    made = MLflowTrackingCallback(URI)
    made.setup()
    made.log_trial_start(fake_trial(tmp_path, lr=0.1, gamma=0.9))
    again = fake_trial(tmp_path, lr=0.2, gamma=0.9)
    again.latest_checkpoint_result = SimpleNamespace(metrics={"num_env_steps_sampled_lifetime": 400})
    made.log_trial_start(again)
    *_, restart, changed = written()
    assert restart.payload["resumed_step"] == 400
    assert restart.payload["params"] == {}
    assert changed.payload == {"step": 400, "changed": {"lr": "0.2"}, "initial": {"lr": "0.1"}}


def test_parameters_at_the_end(no_courier: list[dict[str, str]], tmp_path: Path) -> None:
    made = MLflowTrackingCallback(URI, log_params_on_trial_end=True)
    made.setup()
    trial = fake_trial(tmp_path, lr=0.1)
    made.log_trial_start(trial)
    made.log_trial_end(trial)
    *_, start, end = written()
    assert start.payload["params"] == {}
    assert end.payload["params"] == {"lr": "0.1"}


def test_the_experiment_comes_from_arguments_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "env")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    assert MLflowTrackingCallback(URI).experiment_id == "7"
    named = MLflowTrackingCallback(URI, experiment_name="mine")
    assert (named.experiment_name, named.experiment_id) == ("mine", None)


def test_a_server_that_is_not_there_fails_before_training_where_that_is_asked(
    no_courier: list[dict[str, str]], tmp_path: Path
) -> None:
    made = MLflowTrackingCallback(URI, on_unreachable="fail")
    made.setup()
    with pytest.raises(ConfigurationError, match="cannot be reached"):
        made.log_trial_start(fake_trial(tmp_path))
    made.on_experiment_end([fake_trial(tmp_path)])
    assert made.spool is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: MLflowTrackingCallback("file:///tmp/x"),
        lambda: MLflowTrackingCallback(URI, run_name="{nope}"),
        lambda: MLflowTrackingCallback(URI, names="all"),  # type: ignore[arg-type]
        lambda: MLflowTrackingCallback(URI, include="train/*"),
        lambda: MLflowTrackingCallback(URI, on_unreachable="wait"),  # type: ignore[arg-type]
        lambda: MLflowTrackingCallback(URI, registry_uri="http://u:hunter22@h"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(wrong: Callable[[], Callback]) -> None:
    with pytest.raises(ConfigurationError):
        wrong()


def test_tags_are_legal() -> None:
    assert MLflowTrackingCallback(URI, tags={"a@b": 1, names.TAG_TIMEFRAME: "1d"}).tags == {
        "a_x40_b": "1",
        names.TAG_TIMEFRAME: "1d",
    }


def test_what_changes_carries_its_donor_and_its_first_value(no_courier: list[dict[str, str]], tmp_path: Path) -> None:
    made = MLflowTrackingCallback(URI)
    made.setup()
    made.log_trial_start(fake_trial(tmp_path, lr=0.1))
    for lr, path in ((0.2, "c1"), (0.2, "c1"), (0.2, "c2"), (0.3, "c3")):
        clone = fake_trial(tmp_path, lr=lr)
        clone.evaluated_params = {"lr": 0.1}  # Tune leaves them as they were
        metrics = {"trial_id": "t9", "training_iteration": 4}
        clone.latest_checkpoint_result = SimpleNamespace(metrics=metrics, checkpoint=SimpleNamespace(path=path))
        made.log_trial_start(clone)
    assert [event.payload for event in written() if event.kind == events.HPARAMS] == [
        {"step": 4, "changed": {"lr": "0.2"}, "initial": {"lr": "0.1"}, "donor": "t9"},
        {"step": 4, "changed": {}, "donor": "t9"},
        {"step": 4, "changed": {"lr": "0.3"}, "donor": "t9"},
    ]


def test_only_covered_results_are_released(no_courier: list[dict[str, str]], tmp_path: Path) -> None:
    made = MLflowTrackingCallback(URI, publish="checkpointed")
    made.setup()
    trial = fake_trial(tmp_path)
    made.log_trial_start(trial)
    for step in (1, 2, 3):
        made.log_trial_result(step, trial, {"loss": 1.0, "training_iteration": step})
    trial.latest_checkpoint_result = SimpleNamespace(metrics={"training_iteration": 2})
    made.log_trial_save(trial)
    made.log_trial_save(trial)
    made.log_trial_end(trial, failed=True)
    kinds = [(event.kind, event.payload.get("upto")) for event in written()[3:]]
    assert kinds == [*[(events.HELD, None)] * 3, (events.RELEASE, 5), (events.TRIAL_END, None)]


def test_an_alert_is_tagged_at_the_step_it_was_first_raised(no_courier: list[dict[str, str]], tmp_path: Path) -> None:
    made = MLflowTrackingCallback(URI)
    made.setup()
    trial = fake_trial(tmp_path)
    made.log_trial_start(trial)
    for step, collapsed in ((10, 0.0), (20, 1.0), (30, 1.0)):
        stability = {"collapsed": collapsed, "entropy_collapsed": 0.0, "non_finite_losses": 0.0}
        given = {"env_runners": {}, "num_env_steps_sampled_lifetime": step, "stability": stability}
        made.log_trial_result(step, trial, given)
    results = [event.payload for event in written() if event.kind == events.RESULT]
    assert [result.get("tags") for result in results] == [None, {"drl.alert.collapsed": "20"}, None]
    assert results[1]["metrics"]["stability/collapsed"] == 1.0


def test_a_learner_at_another_rate_raises_an_alert_once(no_courier: list[dict[str, str]], tmp_path: Path) -> None:
    made = MLflowTrackingCallback(URI)
    made.setup()
    trial = fake_trial(tmp_path, lr=1e-3)
    made.log_trial_start(trial)
    for step, rate in enumerate([1e-3, 5e-4, 5e-4], start=1):
        learner = {"default_optimizer_learning_rate": rate}
        result = {names.LIFETIME_STEPS: step, "learners": {"p0": learner}, "training_iteration": step}
        made.log_trial_result(step, trial, result)
    assert [event.payload.get("tags") for event in written()[3:]] == [
        None,
        {f"{names.TAG_ALERT}.learning_rate": "2"},
        None,
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"publish": "sometimes"},
        {"param_include": "lr"},
        {"param_exclude": [1]},
        {"journal_limit_mb": 1},
    ],
)
def test_a_wrong_choice_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        MLflowTrackingCallback(URI, **wrong)


@pytest.mark.parametrize(
    ("said", "advice"), [("401 Unauthorized", "MLFLOW_TRACKING_TOKEN"), ("403 Forbidden", "--allowed-hosts")]
)
def test_a_server_that_lets_nobody_in_is_told_with_what_to_do(
    no_courier: list[dict[str, str]], tmp_path: Path, said: str, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    status = {
        "phase": courier_status.RETRYING, "message": said, "pid": 0, "retries": 1, "lag_s": 0.0, "updated_s": 0.0,
        "cpu_s": 0.0, "startup_cpu_s": 0.0, "progress": {},
    }  # fmt: skip
    for on_unreachable in ("fail", "spool"):
        made = MLflowTrackingCallback(URI, on_unreachable=on_unreachable)  # type: ignore[arg-type]
        made.setup()
        assert made.spool is not None
        (made.spool.directory / courier_status.PROGRESS_FILE).write_text(json.dumps(status))
        if on_unreachable == "fail":
            with pytest.raises(ConfigurationError, match=advice):
                made.log_trial_start(fake_trial(tmp_path))
        else:
            made.log_trial_start(fake_trial(tmp_path))
            assert advice in caplog.text


def test_a_port_is_no_answer() -> None:
    uri = "http://127.0.0.1:4030"
    assert remedy(f"HTTPConnectionPool(host='127.0.0.1', port=4030): connection refused by {uri}", uri).startswith(
        "start"
    )
