"""A past trial told again: restarts, changed parameters, donors, what Tune lost; the same each time."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from drl_ray_tracking import names
from drl_ray_tracking.trials.metrics import MetricSelection
from drl_ray_tracking.trials.past import read_experiment
from drl_ray_tracking.trials.place import Place
from drl_ray_tracking.trials.retold import Changed, Reported, Restarted, retell
from drl_ray_tracking.trials.tracked import Defaults, Tracked
from tests.tracking.test_import_tune import START_S, experiment, line


def told(folder: Path, trial: int, tracked: Tracked | None = None) -> Any:
    return retell(read_experiment(Place.at(folder)).trials[trial], tracked or Tracked(), ())


def test_a_restart_and_what_changed_with_it(tmp_path: Path) -> None:
    found = told(experiment(tmp_path), 1)
    kinds = [type(one).__name__ for one in found.went]
    assert kinds == ["Reported"] * 4 + ["Restarted", "Changed"] + ["Reported"] * 3
    restart, change = found.went[4:6]
    assert (restart.step, change.step) == (2, 2)
    assert (change.changed, change.initial, change.donor) == ({"lr": "0.2"}, {"lr": "0.1"}, "")
    times = [one.time_ms for one in found.went]
    assert all(later > earlier for earlier, later in pairwise(times)), "told apart by time"
    assert found.started_ms < times[0] and found.lost == 0
    assert found.params["lr"] == "0.1" and found.params["api_key"] == "<redacted>"
    assert found == told(experiment(tmp_path / "again"), 1)


def test_the_name_is_of_the_beginning_and_the_hash_of_the_end(tmp_path: Path) -> None:
    folder = experiment(tmp_path)
    restored, whole = told(folder, 1), told(folder, 0)
    assert restored.name[-6:] == whole.identity.config_hash[:6]
    assert restored.identity.config_hash != whole.identity.config_hash


def test_what_tune_lost_at_the_end_is_counted_and_its_very_last_result_kept(tmp_path: Path) -> None:
    folder = experiment(tmp_path)
    state = next(folder.glob("experiment_state-*.json"))
    stored = json.loads(state.read_text())
    stored["trial_data"][0][1] = json.dumps({"last_result": line("ab_0", 6)})
    state.write_text(json.dumps(stored))
    found = told(folder, 0)
    reported = [one for one in found.went if isinstance(one, Reported)]
    assert [one.metrics["training_iteration"] for one in reported] == [1, 2, 3, 6]
    assert found.lost == 2
    stored["trial_data"][0][1] = json.dumps({"last_result": line("ab_0", 6) | {"trial_id": "ab_1"}})
    state.write_text(json.dumps(stored))
    assert told(folder, 0).lost == 0, "what PBT has put there is the donor's"


def test_a_donor_is_that_of_the_exploit_before_the_restart(tmp_path: Path) -> None:
    folder = experiment(tmp_path)
    state = next(folder.glob("experiment_state-*.json"))
    stored = json.loads(state.read_text())
    for entry, label in zip(stored["trial_data"], ("0_lr=0.1", "1_lr=0.1@perturbed[lr=0.2]", "2_lr=0.3"), strict=True):
        entry[0] = json.dumps({**json.loads(entry[0]), "experiment_tag": label})
    state.write_text(json.dumps(stored))
    exploits = [
        ["1_lr=0.1", "2_lr=0.3", 3, 3, {}, {}],
        ["1_lr=0.1", "0_lr=0.1", 4, 3, {}, {}],
        ["1_lr=0.1", "2_lr=0.3", 5, 5, {}, {}],  # no result came after it
        ["nobody", "0_lr=0.1", 4, 3, {}, {}],
    ]
    (folder / "pbt_global.txt").write_text("".join(json.dumps(one) + "\n" for one in exploits) + "half a li")
    changes = [one for one in told(folder, 1).went if isinstance(one, Changed)]
    assert [change.donor for change in changes] == ["ab_0"]
    assert told(folder, 1).lost == 0
    late = json.dumps(["1_lr=0.1", "2_lr=0.3", 8, 8, {}, {}])
    (folder / "pbt_global.txt").write_text(late + "\n")
    assert told(folder, 1).lost == 3, "it had come to 8, and Tune's files end at 5"


def test_a_trial_that_pbt_started_anew_after_its_last_result_ends_with_the_parameters_it_was_given(
    tmp_path: Path,
) -> None:
    folder = experiment(tmp_path)
    before = told(folder, 1)
    trial = next(place for place in folder.iterdir() if place.is_dir() and "ab_1" in place.name)
    last = json.loads((trial / "result.json").read_text().splitlines()[-1])["config"]
    (trial / "params.json").write_text(json.dumps({**last, "lr": 0.7}))
    after = told(folder, 1)
    change = after.went[-1]
    assert isinstance(change, Changed)
    assert (change.changed, change.initial) == ({"lr": "0.7"}, {}), "its first value was told at the first change"
    assert change.time_ms > before.went[-1].time_ms and change.step == before.went[-1].step
    assert after.went[:-1] == before.went and after.name == before.name
    assert after.identity.config_hash != before.identity.config_hash


def test_the_tracked_selection_defaults_and_names_are_used(tmp_path: Path) -> None:
    tracked = Tracked(
        tags={names.TAG_TIMEFRAME: "1h"},
        run_name="{algorithm}-{timeframe}",
        selection=MetricSelection(include=("lo*",)),
        param_exclude=("fn", "api_key"),
        defaults=Defaults(named={"lr": 0.1, "fn": "module:f"}, written={"lr": 0.1, "fn": "<function f>"}),
    )
    found = told(experiment(tmp_path), 0, tracked)
    assert found.name == "train-1h"
    assert found.params == {"lr": "0.1"}, "searched, though it is the default"
    assert {key for one in found.went if isinstance(one, Reported) for key in one.metrics} == {
        "loss", "tracker/non_finite_values",
    }  # fmt: skip
    assert found.started_ms == START_S * 1000 - 401
    assert not [one for one in found.went if isinstance(one, Restarted)]


def test_how_a_sweep_was_tracked_survives_its_file() -> None:
    tracked = Tracked(
        tags={"a": "b"},
        run_name="{env}",
        selection=MetricSelection("both", ("x*",), ("y",)),
        param_include=("p",),
        param_exclude=("q",),
        defaults=Defaults({"a": 1}, {"a": "1"}),
    )
    assert Tracked.from_text(tracked.to_text()) == tracked
    assert Tracked.from_text(Tracked().to_text()) == Tracked()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"run_name": "{nothing}"}', Tracked().to_text().replace("vocabulary", "other")]
)
def test_what_says_nothing_of_the_tracking_is_none(text: str) -> None:
    assert Tracked.from_text(text) is None
