"""Conditions on tags, as MLflow's search takes them: quotes cannot break out of a value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mlflow.tracking import MlflowClient

from drl_ray_tracking import load_runs, names
from drl_ray_tracking.errors import ConfigurationError, DataError

pytestmark = pytest.mark.mlflow


@pytest.fixture
def store(sqlite_store: Callable[[], str]) -> str:
    """A store with a trial for each of three users, two of them with quotes in their names."""
    uri = sqlite_store()
    client = MlflowClient(uri)
    experiment = client.create_experiment("shared")
    for number, user in enumerate(("ada", "o'neill", 'the "boss"')):
        tags = {
            names.TAG_ROLE: names.ROLE_TRIAL,
            names.TAG_SWEEP_ID: f"sweep{number}",
            names.TAG_TRIAL_ID: f"t{number}",
            names.TAG_JOB_ID: "01000000",  # counted: the first job of every cluster
            names.TAG_SUBMISSION_ID: f"raysubmit_{number}",
            "mlflow.user": user,
        }
        client.set_terminated(client.create_run(experiment, tags=tags, run_name=user).info.run_id)
    return uri


@pytest.mark.parametrize("user", ["ada", "o'neill", 'the "boss"'])
def test_one_users_trials(store: str, user: str) -> None:
    runs = load_runs(store, "shared", where={"mlflow.user": user}, metrics=[])
    assert list(runs.runs["name"]) == [user]


def test_a_job_by_its_submission_id_or_by_its_number(store: str) -> None:
    assert list(load_runs(store, "shared", job="raysubmit_1", metrics=[]).runs["name"]) == ["o'neill"]
    assert len(load_runs(store, "shared", job="01000000", metrics=[])) == 3
    one = load_runs(store, "shared", job="01000000", where={"mlflow.user": "ada"}, metrics=[])
    assert list(one.runs["name"]) == ["ada"]


def test_nothing_that_meets_the_conditions_is_said_with_them(store: str) -> None:
    with pytest.raises(DataError, match=r"the job 'raysubmit_1' with mlflow.user='ada' of experiment 'shared'"):
        load_runs(store, "shared", job="raysubmit_1", where={"mlflow.user": "ada"})


@pytest.mark.parametrize("where", [{"a`b": "x"}, {"a": "both ' and \""}, {"": "x"}])
def test_what_cannot_be_searched_for_is_refused(store: str, where: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="cannot be searched for"):
        load_runs(store, "shared", where=where)
