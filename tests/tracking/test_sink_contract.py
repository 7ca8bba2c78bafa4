"""One contract for every sink: in memory, a SQLite file, servers over SQLite and PostgreSQL, one behind a password."""

from __future__ import annotations

import base64
import json
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from drl_ray_tracking.tracking.mlflow_sink import MlflowSink, bounded_requests
from drl_ray_tracking.tracking.model_store import ModelSpec
from drl_ray_tracking.tracking.sink import (
    MemorySink,
    MetricPoint,
    RunSpec,
    Sink,
    SinkRefusedError,
    SinkUnavailableError,
)
from tests.network import free_port
from tests.servers import ADMIN, Server, behind_basic_auth, postgres, running


class Store(Protocol):
    """Looks into a store past its sink, and does there what a user would."""

    sink: Sink

    def points(self, run_id: str, key: str) -> set[MetricPoint]: ...
    def params(self, run_id: str) -> Mapping[str, str]: ...
    def status(self, run_id: str) -> tuple[str, int | None]: ...
    def parent(self, run_id: str) -> str | None: ...
    def artifacts(self, run_id: str) -> Mapping[str, str]: ...
    def model_files(self, model_id: str) -> Mapping[str, str]: ...
    def model_values(self, model_id: str) -> Mapping[str, float]: ...
    def delete_run(self, run_id: str) -> None: ...
    def delete_experiment(self, experiment_id: str) -> None: ...


@dataclass
class MemoryStore:
    sink: MemorySink

    def points(self, run_id: str, key: str) -> set[MetricPoint]:
        return {point for point in self.sink.runs[run_id].points if point.key == key}

    def params(self, run_id: str) -> Mapping[str, str]:
        return self.sink.runs[run_id].params

    def status(self, run_id: str) -> tuple[str, int | None]:
        return self.sink.runs[run_id].status, self.sink.runs[run_id].end_ms

    def parent(self, run_id: str) -> str | None:
        return self.sink.runs[run_id].parent_run_id

    def artifacts(self, run_id: str) -> Mapping[str, str]:
        return {name: content.decode() for name, content in self.sink.runs[run_id].artifacts.items()}

    def model_files(self, model_id: str) -> Mapping[str, str]:
        return {name: content.decode() for name, content in self.sink.models.models[model_id].files.items()}

    def model_values(self, model_id: str) -> Mapping[str, float]:
        return {point.key: point.value for point in self.sink.models.models[model_id].points}

    def delete_run(self, run_id: str) -> None:
        self.sink.runs[run_id].deleted = True

    def delete_experiment(self, experiment_id: str) -> None:
        self.sink.deleted_experiments.add(experiment_id)


class MlflowStore:
    def __init__(self, uri: str, scratch: Path) -> None:
        from mlflow.tracking import MlflowClient

        self.sink: Sink = MlflowSink(uri)
        self.client = MlflowClient(uri)
        self.scratch = scratch

    def points(self, run_id: str, key: str) -> set[MetricPoint]:
        history = self.client.get_metric_history(run_id, key)
        found = [MetricPoint(point.key, point.value, point.timestamp, point.step) for point in history]
        assert len(found) == len(set(found)), "a point is there twice"
        return set(found)

    def params(self, run_id: str) -> Mapping[str, str]:
        return dict(self.client.get_run(run_id).data.params)

    def status(self, run_id: str) -> tuple[str, int | None]:
        info = self.client.get_run(run_id).info
        return info.status, info.end_time

    def parent(self, run_id: str) -> str | None:
        return self.client.get_run(run_id).data.tags.get("mlflow.parentRunId")

    def artifacts(self, run_id: str) -> Mapping[str, str]:
        self.client.download_artifacts(run_id, "", str(self.scratch))
        files = [path for path in self.scratch.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.scratch)): path.read_text() for path in files}

    def model_files(self, model_id: str) -> Mapping[str, str]:
        from mlflow.artifacts import download_artifacts

        location = self.client.get_logged_model(model_id).artifact_location
        target = self.scratch / model_id
        download_artifacts(location, dst_path=str(target), tracking_uri=self.client.tracking_uri)
        files = [path for path in target.rglob("*") if path.is_file()]
        (top,) = target.iterdir()
        return {str(path.relative_to(top)): path.read_text() for path in files}

    def model_values(self, model_id: str) -> Mapping[str, float]:
        return {value.key: value.value for value in self.client.get_logged_model(model_id).metrics or ()}

    def delete_run(self, run_id: str) -> None:
        self.client.delete_run(run_id)

    def delete_experiment(self, experiment_id: str) -> None:
        self.client.delete_experiment(experiment_id)


@dataclass(frozen=True)
class Guarded:
    """A server behind basic auth, and what its administrator logs in with."""

    address: str
    credentials: Mapping[str, str]


@pytest.fixture(scope="module")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("postgres-server")
    # PostgreSQL's socket path must stay short.
    with (
        tempfile.TemporaryDirectory(prefix="drl-pg-") as data,
        postgres(Path(data)) as database,
        running(Server(folder, database)) as server,
    ):
        yield server.address


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    server, password = behind_basic_auth(tmp_path_factory.mktemp("guarded-server"))
    with running(server):
        yield Guarded(server.address, login(ADMIN, password))


def add_user(server: Guarded, name: str, password: str) -> None:
    words = ":".join(server.credentials.values()).encode()
    request = urllib.request.Request(
        f"{server.address}/api/2.0/mlflow/users/create",
        json.dumps({"username": name, "password": password}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {base64.b64encode(words).decode()}"},
    )
    with urllib.request.urlopen(request) as reply:
        assert reply.status == 200


def login(user: str, password: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}


_REAL = [pytest.param(name, marks=pytest.mark.mlflow) for name in ("sqlite", "http", "postgres", "guarded")]


@pytest.fixture(params=["memory", *_REAL])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    credentials: Mapping[str, str] = {}
    if request.param == "memory":
        yield MemoryStore(MemorySink())
        return
    if request.param == "sqlite":
        uri = request.getfixturevalue("sqlite_store")()
    elif request.param == "guarded":
        guarded: Guarded = request.getfixturevalue("guarded_server")
        uri, credentials = guarded.address, guarded.credentials
    else:
        uri = request.getfixturevalue({"http": "mlflow_server", "postgres": "postgres_server"}[request.param])
    with bounded_requests(credentials=credentials):
        yield MlflowStore(uri, scratch)


@pytest.fixture
def experiment(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    location = str(tmp_path / "artifacts") if "sqlite" in request.node.callspec.id else None
    return store.sink.open_experiment(f"contract-{uuid.uuid4().hex}", None, location)


def spec(name: str = "one", parent: str | None = None) -> RunSpec:
    return RunSpec(f"run-{name}", {"drl.sweep_id": "s", "drl.trial_id": name}, {"drl.epoch": "1"}, 1_000, parent)


def test_an_experiment_is_found_again_by_name_and_by_id(store: Store) -> None:
    name = f"contract-{uuid.uuid4().hex}"
    made = store.sink.open_experiment(name, None, None)
    assert store.sink.open_experiment(name, None, None) == made
    assert store.sink.open_experiment(None, made, None) == made
    assert store.sink.open_experiment("ignored", made, None) == made


def test_without_a_name_it_is_the_default_experiment(store: Store) -> None:
    assert store.sink.open_experiment(None, None, None) == "0"


def test_an_experiment_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(SinkRefusedError, match=r"(?i)no experiment"):
        store.sink.open_experiment(None, "987654321", None)


def test_a_deleted_experiment_is_refused_for_everything(store: Store, experiment: str) -> None:
    run_id = store.sink.create_run(experiment, spec())
    store.delete_experiment(experiment)
    with pytest.raises(SinkRefusedError, match="deleted"):
        store.sink.open_experiment(None, experiment, None)
    with pytest.raises(SinkRefusedError):
        store.sink.create_run(experiment, spec("two"))
    with pytest.raises(SinkRefusedError):
        store.sink.log(run_id, metrics=[MetricPoint("a", 1.0, 1, 1)])


def test_a_run_is_found_by_all_of_its_identity(store: Store, experiment: str) -> None:
    assert store.sink.find_run(experiment, spec().identity) is None
    parent = store.sink.create_run(experiment, spec("parent"))
    run_id = store.sink.create_run(experiment, spec(parent=parent))
    found = store.sink.find_run(experiment, spec().identity)
    assert found is not None
    assert found.run_id == run_id
    assert spec().identity.items() <= found.tags.items()
    assert found.tags["drl.epoch"] == store.sink.read_tags(run_id)["drl.epoch"] == "1"
    assert store.sink.find_run(experiment, {**spec().identity, "drl.trial_id": "other"}) is None
    assert store.parent(run_id) == parent
    assert store.parent(parent) is None


def test_the_same_call_again_changes_nothing(store: Store, experiment: str) -> None:
    run_id = store.sink.create_run(experiment, spec())
    points = [MetricPoint("train/loss", value, 1_000 + step, step) for step, value in enumerate((0.5, 1e-300, -2.0))]
    for _ in range(2):
        store.sink.log(run_id, metrics=points, params={"lr": "0.1"}, tags={"t": "1"})
        store.sink.log_text(run_id, "hello", "note.txt")
        store.sink.set_status(run_id, "FINISHED", 5_000)
    assert store.points(run_id, "train/loss") == set(points)
    assert store.params(run_id) == {"lr": "0.1"}
    assert store.sink.read_tags(run_id)["t"] == "1"
    assert store.status(run_id) == ("FINISHED", 5_000)
    assert store.artifacts(run_id) == {"note.txt": "hello"}


def test_more_than_one_request_takes(store: Store, experiment: str) -> None:
    run_id = store.sink.create_run(experiment, spec())
    points = [MetricPoint("x", float(step), step, step) for step in range(2_500)]
    params = {f"p{n}": "é" * 6_000 if n < 40 else "v" for n in range(250)}
    tags = {f"t{n}": "é" * 8_000 if n < 40 else "v" for n in range(150)}
    store.sink.log(run_id, metrics=points, params=params, tags=tags)
    assert store.points(run_id, "x") == set(points)
    assert store.params(run_id) == params
    assert tags.items() <= store.sink.read_tags(run_id).items()


def test_a_full_batch_of_values_goes_with_params_and_tags(store: Store, experiment: str) -> None:
    run_id = store.sink.create_run(experiment, spec())
    points = [MetricPoint("x", float(step), step, step) for step in range(1_000)]
    store.sink.log(run_id, metrics=points, params={"a": "1"}, tags={"b": "2"})
    assert len(store.points(run_id, "x")) == 1_000


def test_nothing_to_write_is_fine(store: Store, experiment: str) -> None:
    store.sink.log(store.sink.create_run(experiment, spec()))


def test_a_parameter_cannot_change(store: Store, experiment: str) -> None:
    run_id = store.sink.create_run(experiment, spec())
    store.sink.log(run_id, params={"lr": "0.1"})
    with pytest.raises(SinkRefusedError):
        store.sink.log(run_id, params={"lr": "0.2"})
    assert store.params(run_id) == {"lr": "0.1"}


@pytest.mark.parametrize("name", ["a@b", "a//b", "../a", "/a"])
def test_an_illegal_metric_name_is_refused(store: Store, experiment: str, name: str) -> None:
    run_id = store.sink.create_run(experiment, spec())
    with pytest.raises(SinkRefusedError):
        store.sink.log(run_id, metrics=[MetricPoint(name, 1.0, 1, 1)])


def test_an_ended_run_takes_values_and_can_be_opened_again(store: Store, experiment: str) -> None:
    run_id = store.sink.create_run(experiment, spec())
    store.sink.set_status(run_id, "KILLED", 2_000)
    store.sink.log(run_id, metrics=[MetricPoint("a", 1.0, 1, 1)])
    assert store.status(run_id)[0] == "KILLED"
    store.sink.reopen_run(run_id, {"drl.epoch": "2"})
    assert store.status(run_id)[0] == "RUNNING"
    assert store.sink.read_tags(run_id)["drl.epoch"] == "2"
    store.sink.set_status(run_id, "FINISHED", 3_000)
    assert store.status(run_id) == ("FINISHED", 3_000)


def test_a_deleted_run_refuses_everything(store: Store, experiment: str) -> None:
    run_id = store.sink.create_run(experiment, spec())
    store.delete_run(run_id)
    with pytest.raises(SinkRefusedError):
        store.sink.log(run_id, metrics=[MetricPoint("a", 1.0, 1, 1)])
    with pytest.raises(SinkRefusedError):
        store.sink.set_status(run_id, "FINISHED", 1)
    with pytest.raises(SinkRefusedError, match="deleted"):
        store.sink.find_run(experiment, spec().identity)


def test_a_folder_arrives_whole(store: Store, experiment: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("1")
    (folder / "deep" / "b.txt").write_text("2")
    run_id = store.sink.create_run(experiment, spec())
    store.sink.log_folder(run_id, folder, "files")
    assert store.artifacts(run_id) == {"files/a.txt": "1", "files/deep/b.txt": "2"}


@pytest.mark.mlflow
def test_a_model_is_found_by_its_tags_and_ready_once_finished(store: Store, experiment: str) -> None:
    run_id, models = store.sink.create_run(experiment, spec()), store.sink.models
    wanted = {"drl.checkpoint": "abc", "drl.model.role": "pointer"}
    assert models.find(experiment, wanted) == []
    first = models.create(experiment, ModelSpec("a/../b: é", wanted, {"n": "1"}, run_id))
    other = models.create(experiment, ModelSpec("x" * 400, {**wanted, "drl.checkpoint": "d"}, {}, run_id))
    (found,) = models.find(experiment, wanted)
    assert (found.model_id, found.ready, found.tags["n"]) == (first, False, "1")
    for _ in range(2):
        models.tag(first, {"n": "2"})
        models.finish(first)
    (found,) = models.find(experiment, wanted)
    assert (found.ready, found.tags["n"]) == (True, "2")
    assert [model.model_id for model in models.find(experiment, {"drl.model.role": "pointer"})] == [first, other]


def test_a_models_files_arrive_whole_and_its_values_are_the_runs(store: Store, experiment: str, tmp_path: Path) -> None:
    run_id, models = store.sink.create_run(experiment, spec()), store.sink.models
    model_id = models.create(experiment, ModelSpec("m", {"drl.checkpoint": "1"}, {}, run_id))
    (tmp_path / "m" / "deep").mkdir(parents=True)
    (tmp_path / "m" / "MLmodel").write_text("flavors: {}")
    (tmp_path / "m" / "deep" / "weights").write_text("1 2 3")
    value = MetricPoint("loss", 0.5, 1_000, 7)
    store.sink.log(run_id, metrics=[value])
    for _ in range(2):
        models.upload(model_id, tmp_path / "m")
        store.sink.log(run_id, metrics=[replace(value, model_id=model_id)])
    assert store.model_files(model_id) == {"MLmodel": "flavors: {}", "deep/weights": "1 2 3"}
    assert store.model_values(model_id) == {"loss": 0.5}
    assert store.points(run_id, "loss") == {value}, "once"


def test_a_model_can_be_deleted(store: Store, experiment: str) -> None:
    run_id, models = store.sink.create_run(experiment, spec()), store.sink.models
    model_id = models.create(experiment, ModelSpec("m", {"drl.checkpoint": "1"}, {}, run_id))
    models.finish(model_id)
    assert models.delete(model_id, run_id)
    assert models.find(experiment, {"drl.checkpoint": "1"}) == []


def test_a_model_that_a_registered_version_was_made_of_stays(mlflow_server: str) -> None:
    from mlflow.tracking import MlflowClient

    client, sink = MlflowClient(mlflow_server, mlflow_server), MlflowSink(mlflow_server)
    experiment = sink.open_experiment(f"contract-{uuid.uuid4().hex}", None, None)
    run_id = sink.create_run(experiment, spec())
    model_id = sink.models.create(experiment, ModelSpec("m", {"drl.checkpoint": "1"}, {}, run_id))
    sink.models.finish(model_id)
    name = f"registered-{uuid.uuid4().hex}"
    client.create_registered_model(name)
    location = client.get_logged_model(model_id).artifact_location
    client.create_model_version(name, location, model_id=model_id)
    assert not sink.models.delete(model_id, run_id)
    assert sink.models.find(experiment, {"drl.checkpoint": "1"})


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with bounded_requests(2.0), pytest.raises(SinkUnavailableError):
        MlflowSink(f"http://127.0.0.1:{free_port()}").open_experiment("x", None, None)


@pytest.mark.mlflow
def test_bounded_requests_leave_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ)
    with bounded_requests(5.0, {"MLFLOW_TRACKING_TOKEN": "t"}):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"
        assert os.environ["MLFLOW_TRACKING_TOKEN"] == "t"
    assert dict(os.environ) == before


@pytest.mark.mlflow
def test_a_wrong_password_is_tried_again_and_a_missing_permission_too(guarded_server: Guarded) -> None:
    """Passwords are renewed and permissions given while a courier waits: neither makes it give up."""
    with bounded_requests(credentials=guarded_server.credentials):
        sink = MlflowSink(guarded_server.address)
        experiment = sink.open_experiment(f"guarded-{uuid.uuid4().hex}", None, None)
        run_id = sink.create_run(experiment, spec())
    add_user(guarded_server, "reader", "a long enough password")
    point = MetricPoint("a", 1.0, 1, 1)
    with bounded_requests(credentials=login(ADMIN, "wrong password")), pytest.raises(SinkUnavailableError, match="401"):
        sink.log(run_id, metrics=[point])
    reader = login("reader", "a long enough password")
    with bounded_requests(credentials=reader), pytest.raises(SinkUnavailableError, match=r"403|Permission"):
        sink.log(run_id, metrics=[point])
    with bounded_requests(credentials=guarded_server.credentials):
        sink.log(run_id, metrics=[point])
        assert MlflowStore(guarded_server.address, Path()).points(run_id, "a") == {point}


@pytest.mark.parametrize("text", ["it's", 'a "b" c'])
def test_what_is_searched_for_may_hold_quotes(store: Store, experiment: str, text: str) -> None:
    identity = {**spec().identity, "drl.fold": text}
    run_id = store.sink.create_run(experiment, replace(spec(), identity=identity))
    found = store.sink.find_run(experiment, identity)
    assert found is not None and found.run_id == run_id
