"""A checkpoint as an MLflow model: loaded by name, it gives the policy's actions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from drl_ray_tracking.errors import ConfigurationError, TrackingError
from drl_ray_tracking.models import FrozenPolicy, Policy
from drl_ray_tracking.models import freeze as freezing
from drl_ray_tracking.models.freeze import freeze
from drl_ray_tracking.models.frozen import FOLDER
from drl_ray_tracking.models.package import NO_CHECKPOINT, WARNING, package
from tests.models.conftest import Trained

pytestmark = [
    pytest.mark.ray,
    pytest.mark.mlflow,
    pytest.mark.filterwarnings("ignore:.*Overriding environment:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*type hint:UserWarning"),  # of MLflow's own models, when it is imported
]
Get = Callable[[str], Trained]


def load(folder: Path) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(folder))


def shown(one: Trained) -> Any:
    return np.array([observation for episode in one.episodes for observation, _ in episode][:200], np.float32)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_the_model_acts_as_the_policy(trained: Get, tmp_path: Path, kind: str) -> None:
    one = trained(kind)
    package(one.checkpoint, tmp_path / "model")
    model = load(tmp_path / "model")
    expected = Policy.load(one.checkpoint).predict(shown(one))
    np.testing.assert_array_equal(model.predict(shown(one)), expected)
    assert model.metadata.metadata["frozen"] == "yes"
    inner = model.unwrap_python_model() if hasattr(model._model_impl, "python_model") else model._model_impl
    np.testing.assert_array_equal(inner.predict(pd.DataFrame(shown(one))), expected)
    signature = model.metadata.signature
    assert [tuple(spec.shape) for spec in signature.inputs] == [(-1, shown(one).shape[1])]
    assert model.metadata.metadata["warning"] == WARNING
    example = model.input_example
    assert len(model.predict(example)) == len(example)


WITHOUT_RAY = """
import sys, json
for name in ("ray", "pandas") if sys.argv[3] == "lean" else ("ray",):
    sys.modules[name] = None  # importing it is an error
import numpy as np
import torch
torch.set_num_threads(1)
if sys.argv[3] == "lean":
    from drl_ray_tracking.models.flavor import _load_pyfunc
    import yaml
    where = yaml.safe_load(open(sys.argv[1] + "/MLmodel"))["flavors"]["python_function"]["data"]
    model = _load_pyfunc(sys.argv[1] + "/" + where)
else:
    import mlflow.pyfunc
    model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(np.load(sys.argv[2])).tolist()))
"""


@pytest.mark.parametrize("kind", ["discrete", "continuous", "sac"])
@pytest.mark.parametrize("how", ["mlflow", "lean"])
def test_where_ray_cannot_be_imported_the_actions_are_those_rllib_gave(
    trained: Get, tmp_path: Path, kind: str, how: str
) -> None:
    one = trained(kind)
    package(one.checkpoint, tmp_path / "model")
    pairs = [pair for episode in one.episodes for pair in episode][:1000]
    assert len(pairs) == 1000
    np.save(tmp_path / "shown.npy", np.array([shown for shown, _ in pairs], np.float32))
    command = [sys.executable, "-c", WITHOUT_RAY, str(tmp_path / "model"), str(tmp_path / "shown.npy"), how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    actions = np.array(json.loads(done.stdout.splitlines()[-1]))
    expected = np.array([action for _, action in pairs])
    if kind == "discrete":
        np.testing.assert_array_equal(actions, expected)
    else:
        np.testing.assert_allclose(actions, expected.reshape(actions.shape), atol=1e-6)
        assert np.ptp(actions) > 0


@pytest.mark.parametrize("kind", ["discrete", "continuous", "sac"])
def test_a_frozen_policy_plays_every_step_as_rllib_did(trained: Get, tmp_path: Path, kind: str) -> None:
    """The same batch shape, one torch thread, no exploration: equal."""
    import torch

    torch.set_num_threads(1)
    one = trained(kind)
    assert freeze(Policy.load(one.checkpoint), tmp_path / "frozen") == ""
    player = FrozenPolicy.load(tmp_path / "frozen").play()
    steps = 0
    for episode in one.episodes:
        for shown, action in episode:
            (own,) = player.act([shown])
            np.testing.assert_array_equal(own, action)
            steps += 1
    assert steps >= 1000


def own_connector(env: Any = None, spaces: Any = None, device: Any = None) -> Any:
    from ray.rllib.connectors.env_to_module import FlattenObservations

    return FlattenObservations()


@pytest.mark.parametrize(
    ("kind", "reason"), [("recurrent", "it remembers what it has seen"), ("agents", "it acts for several agents")]
)
def test_what_cannot_be_frozen_says_why_and_loads_with_rllib(
    trained: Get, tmp_path: Path, kind: str, reason: str
) -> None:
    package(trained(kind).checkpoint, tmp_path / "model")
    model = load(tmp_path / "model")
    assert model.metadata.metadata["frozen"] == f"no: {reason}"
    assert not (tmp_path / "model" / "data" / FOLDER).exists()


def test_what_would_act_differently_is_not_frozen(
    trained: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy.load(trained("continuous").checkpoint)
    with monkeypatch.context() as wrong:
        wrong.setattr(freezing, "_described_filter", lambda policy: None)  # as if a connector were forgotten
        assert "acts differently on 256 observations" in freeze(policy, tmp_path / "a")
    with monkeypatch.context() as wrong:
        wrong.setattr(freezing, "_program", lambda module: 1 / 0)
        assert "cannot be exported: ZeroDivisionError" in freeze(policy, tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    strange = Policy.load(trained("discrete").checkpoint)
    strange._env_to_module.append(own_connector())
    assert freeze(strange, tmp_path / "c") == "it has connectors of its own: FlattenObservations"


def test_a_frozen_policy_says_what_does_not_fit(trained: Get, tmp_path: Path) -> None:
    assert freeze(Policy.load(trained("discrete").checkpoint), tmp_path / "frozen") == ""
    policy = FrozenPolicy.load(tmp_path / "frozen")
    with pytest.raises(TrackingError, match=r"shape \(4,\); \(n, 4\) is needed"):
        policy.predict(np.zeros(4))
    with pytest.raises(TrackingError, match="no observation"):
        policy.predict(np.zeros((0, 4)))
    with pytest.raises(ConfigurationError, match="no frozen policy"):
        FrozenPolicy.load(tmp_path)
    described = tmp_path / "frozen" / "policy.json"
    described.write_text(described.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(ConfigurationError, match="frozen in format 9, 1 is known"):
        FrozenPolicy.load(tmp_path / "frozen")


def test_agents_go_by_name(trained: Get, tmp_path: Path) -> None:
    one = trained("agents")
    package(one.checkpoint, tmp_path / "model")
    model = load(tmp_path / "model")
    episode = one.episodes[0]
    columns = {agent: np.array([seen[agent] for seen, _ in episode], np.float32) for agent in ("left", "right")}
    actions = model.predict(columns)
    for agent in columns:
        np.testing.assert_array_equal(actions[agent], [action[agent] for _, action in episode])


def test_the_command_says_what_is_no_checkpoint(trained: Get, tmp_path: Path) -> None:
    def run(checkpoint: Path, folder: Path) -> Any:
        command = [sys.executable, "-m", "drl_ray_tracking.models.package", str(checkpoint), str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    other = tmp_path / "other"
    other.mkdir()
    refused = run(other, tmp_path / "a")
    assert refused.returncode == NO_CHECKPOINT
    assert "no checkpoint of an RLlib algorithm" in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "a").exists()
    done = run(trained("discrete").checkpoint, tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b" / "MLmodel").is_file()
