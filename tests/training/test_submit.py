"""What a submission refuses before anything is sent, and what it packs; real jobs are in tests/cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from drl_ray_tracking.cli import app
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.training.config import load_config
from drl_ray_tracking.training.submit import Submission, _staged, submit
from tests.network import free_port

CONFIG: dict[str, Any] = {
    "experiment": "submitted",
    "data": {"source": "gym_anytrading:GOOGL"},
    "agents": [{"algorithm": "PPO"}],
    "stop": {"training_iteration": 1},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "given.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return path


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://192.0.2.1:8265")  # Ray alone would let it win
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConfigurationError, match=f"no Ray cluster takes jobs at {address}"):
        submit(Submission(write(tmp_path), address), print)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"storage": "results"}, {}, "storage 'results' is relative"),
        ({"data": {"source": "none.csv"}}, {}, "no such file"),
        ({"stop": {}}, {}, "stop"),
        ({}, {"tracking_uri": "sqlite:///mlflow.db"}, "is relative: a job would look for it in a folder"),
        ({}, {"tracking_uri": "http://me:s3cret@host:5000"}, "whoever sees the cluster's dashboard would see it"),
        ({}, {"variables": {"MLFLOW_TRACKING_TOKEN": "s3cret"}}, "MLFLOW_TRACKING_TOKEN would be seen by whoever"),
        ({}, {"variables": {"FEED": "https://me:s3cret@feed/"}}, "FEED would be seen by whoever"),
        ({}, {"working_dir": Path("/usr")}, "must lie in the working directory /usr"),
    ],
)
def test_refused_before_anything_is_sent(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    said: list[str] = []
    with pytest.raises(ConfigurationError, match=message) as refusal:
        submit(Submission(write(tmp_path, **changes), "http://192.0.2.1:8265", **options), said.append)
    assert "s3cret" not in str(refusal.value)
    assert not said


def test_a_variable_without_a_value_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["submit", str(write(tmp_path)), "--env", "NAME"])
    assert isinstance(done.exception, ConfigurationError)
    assert "--env takes NAME=VALUE but got 'NAME'" in str(done.exception)


def test_a_path_to_a_secret_is_no_secret(tmp_path: Path) -> None:
    variables = {"DRL_TRACK_TOKEN_FILE": "/run/secrets/mlflow", "CUDA_VISIBLE_DEVICES": "0"}
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConfigurationError, match="no Ray cluster takes jobs"):
        submit(Submission(write(tmp_path), address, variables=variables), print)


def test_the_data_file_goes_along_and_the_configuration_finds_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prices.csv").write_text("a,b\n1,2\n")
    data = {"source": "data/prices.csv", "symbol": "X", "timeframe": "1d", "periods_per_year": 252}
    given = write(tmp_path, data=data, tracking={"uri": "http://old:5000", "tags": {"team": "a"}})
    request = Submission(given, tracking_uri="http://new:5000")
    with _staged(request, load_config(given), "http://new:5000") as (folder, relative):
        sent = load_config(folder / relative)
        assert (folder / sent.data.source).read_text() == "a,b\n1,2\n"
        assert sorted(path.name for path in folder.iterdir()) == ["prices.csv", "sweep.yaml"]
    assert sent.tracking.uri == "http://new:5000"
    assert sent.tracking.tags == {"team": "a"}
    assert not folder.exists()


def test_of_several_markets_the_first_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text("a,b\n1,2\n")
    first = {"source": "prices.csv", "symbol": "X", "timeframe": "1d", "periods_per_year": 252}
    given = write(tmp_path, data=[first, {"source": "gym_anytrading:GOOGL"}])
    with _staged(Submission(given), load_config(given), None) as (folder, relative):
        sent = load_config(folder / relative)
        assert [market.source for market in sent.markets] == ["prices.csv", "gym_anytrading:GOOGL"]
        assert (folder / "prices.csv").read_text() == "a,b\n1,2\n"


def test_a_file_that_only_the_cluster_has_stays_where_it_is(tmp_path: Path) -> None:
    data = {"source": "/shared/prices.csv", "symbol": "X", "timeframe": "1d", "periods_per_year": 252}
    given = write(tmp_path, data=data)
    with _staged(Submission(given), load_config(given), None) as (folder, relative):
        assert load_config(folder / relative).data.source == "/shared/prices.csv"


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({"env_class": "my_env:Env"}, "my_env.py"),
        ({"callbacks": ["my_env:Callback"]}, "my_env.py"),
        ({"more_data": [{"source": "other.csv", "symbol": "B"}]}, "other.csv"),
    ],
)
def test_what_lies_beside_the_configuration_and_would_not_be_sent_is_named(
    tmp_path: Path, changes: dict[str, Any], needs: str
) -> None:
    for file in ("my_env.py", "other.csv"):
        (tmp_path / file).write_text("")
    with pytest.raises(ConfigurationError, match=f"needs {needs} as well: give --working-dir"):
        submit(Submission(write(tmp_path, **changes), "http://192.0.2.1:8265"), print)
