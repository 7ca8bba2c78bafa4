"""Going on with a sweep: what it was begun with is kept, another configuration is refused, its runs are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from pyarrow.fs import LocalFileSystem

from drl_ray_tracking import names
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.config import SweepConfig, dump_config, parse_config
from drl_ray_tracking.training.resume import KeptConfig, kept_config, kept_sweep_id, recorded_runs

pytestmark = pytest.mark.mlflow


def configured(**changes: Any) -> SweepConfig:
    given = {
        "experiment": "e",
        "data": {"source": "gym_anytrading:GOOGL"},
        "agents": [{"algorithm": "PPO", "training": {"lr": 0.1}}],
        "stop": {"training_iteration": 8},
        "split": {"train": ["2010-01-01", "2014-01-01"], "validation": ["2014-02-01", "2015-01-01"],
                  "test": ["2015-02-01", "2016-01-01"]},
    }  # fmt: skip
    return parse_config({**given, **changes}, "here")


def begun(folder: Path, config: SweepConfig, base_dir: Path = Path()) -> str:
    storage = SimpleNamespace(storage_filesystem=LocalFileSystem(), experiment_fs_path=str(folder))
    text = dump_config(config, base_dir)
    KeptConfig(text).on_trial_start(1, [], SimpleNamespace(storage=storage))
    return text


def test_the_same_configuration_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = begun(tmp_path / "sweep", configured())
    moved = configured(tracking={"uri": "http://other:5000", "tags": {"a": "b"}}, storage="/elsewhere")
    assert kept_config(str(tmp_path / "sweep"), moved, Path()) == text
    monkeypatch.chdir(tmp_path)
    assert kept_config("sweep", configured(), Path()) == text, "relative to where the command is given"


def test_an_edited_configuration_is_refused_by_key_and_nothing_is_rewritten(tmp_path: Path) -> None:
    text = begun(tmp_path, configured())
    edited = configured(stop={"training_iteration": 20}, agents=[{"algorithm": "PPO", "training": {"lr": 0.2}}])
    with pytest.raises(ConfigurationError) as caught:
        kept_config(str(tmp_path), edited, Path())
    assert "stop.training_iteration: was 8.0, is 20.0" in str(caught.value)
    assert "agents[0].training.lr: was 0.1, is 0.2" in str(caught.value)
    assert "without --resume" in str(caught.value)
    begun(tmp_path, edited)
    assert (tmp_path / names.SWEEP_FILE).read_text() == text


def test_a_data_file_may_lie_elsewhere_but_be_no_other(tmp_path: Path) -> None:
    for folder, file in (("a", "prices.csv"), ("b", "prices.csv"), ("b", "other.csv")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / file).touch()
    begun(tmp_path / "sweep", configured(data={"source": "prices.csv"}), tmp_path / "a")
    assert kept_config(str(tmp_path / "sweep"), configured(data={"source": "prices.csv"}), tmp_path / "b")
    with pytest.raises(ConfigurationError, match=r"data\.source: was 'prices.csv', is 'other.csv'"):
        kept_config(str(tmp_path / "sweep"), configured(data={"source": "other.csv"}), tmp_path / "b")


def test_a_secret_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "correct-horse-battery")
    secretive = configured(env={"key_of_feed": "correct-horse-battery"})
    begun(tmp_path, secretive)
    assert "correct-horse" not in (tmp_path / names.SWEEP_FILE).read_text()
    assert kept_config(str(tmp_path), secretive, Path())


def test_a_sweep_of_an_earlier_version_keeps_nothing(tmp_path: Path) -> None:
    assert kept_config(str(tmp_path), configured(), Path()) is None
    assert kept_sweep_id(str(tmp_path)) is None


def test_the_runs_of_trials_that_have_ended_are_found_in_the_store(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    (tmp_path / names.IDENTITY_FILE).write_text('{"sweep_id": "s1", "epoch": 1, "name": "x"}')
    uri = sqlite_store()
    client = MlflowClient(uri)
    experiment = client.create_experiment("e")

    def run(sweep: str, **tags: str) -> str:
        return str(client.create_run(experiment, tags={names.TAG_SWEEP_ID: sweep, **tags}).info.run_id)

    parent = run("s1", **{names.TAG_ROLE: names.ROLE_SWEEP})
    trial = run("s1", **{names.TAG_ROLE: names.ROLE_TRIAL, names.TAG_TRIAL_ID: "t1"})
    run("s2", **{names.TAG_ROLE: names.ROLE_TRIAL, names.TAG_TRIAL_ID: "t2"})
    assert kept_sweep_id(str(tmp_path)) == "s1"
    assert recorded_runs(uri, "e", "s1", pytest.fail) == {"": parent, "t1": trial}
    said: list[str] = []
    assert recorded_runs("http://127.0.0.1:9", "e", "s1", said.append) == {} and said
