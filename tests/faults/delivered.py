"""The assertion every fault shares: what the hooks were given is in the store, once, and nothing else is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from drl_ray_tracking import names
from drl_ray_tracking.trials.metrics import NON_FINITE
from tests.faults.given import Given, GivenTrial, Point


class Store:
    """What a healthy client sees in a store, apart from the runs that were there before."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.client = MlflowClient(uri)
        self.experiment = experiment
        self._before = set(self._all_runs())

    def runs(self) -> dict[str, tuple[str, Any]]:
        """Run id -> (experiment's name, run), for every new run anywhere, deleted ones included."""
        return {run_id: found for run_id, found in self._all_runs().items() if run_id not in self._before}

    def run_of(self, trial_id: str) -> Any:
        """The run of a trial; there must be one."""
        (run,) = [run for _, run in self.runs().values() if run.data.tags.get(names.TAG_TRIAL_ID) == trial_id]
        return run

    def points(self, run: Any) -> Counter[Point]:
        """Every point of a run; two that differ in their time alone count twice."""
        keys = [key for key in run.data.metrics if not key.startswith(("tracker/", "hparam/")) or key == NON_FINITE]
        history = (self.client.get_metric_history(run.info.run_id, key) for key in keys)
        return Counter((point.key, point.step, point.value) for points in history for point in points)

    def _all_runs(self) -> dict[str, tuple[str, Any]]:
        runs = {}
        for experiment in self.client.search_experiments(view_type=ViewType.ALL):
            token = None
            while True:
                page = self.client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, page_token=token)
                runs.update({run.info.run_id: (experiment.name, run) for run in page})
                token = page.token
                if not token:
                    break
        return runs


def assert_delivered(
    givens: Given | Collection[Given],
    store: Store,
    *,
    deleted: Collection[str] = (),
) -> None:
    """Fails unless the store holds exactly what the hooks of these sweeps were given.

    No value is lost, none is there twice, every status and parent is right, and there is no other new
    run in any experiment, deleted runs included.

    Args:
        givens: the traces of the sweeps' drivers.
        store: a healthy view of the store.
        deleted: ids of trials whose run a user deleted: it stays deleted, and holds no value it was not given.
    """
    sweeps = {given.sweep_id: given for given in ([givens] if isinstance(givens, Given) else givens)}
    by_sweep: dict[str, list[Any]] = {sweep_id: [] for sweep_id in sweeps}
    for experiment, run in store.runs().values():
        assert experiment == store.experiment, f"a stray run in {experiment}"
        assert run.data.tags[names.TAG_SWEEP_ID] in by_sweep, "a run of nobody's"
        by_sweep[run.data.tags[names.TAG_SWEEP_ID]].append(run)
    for sweep_id, given in sweeps.items():
        runs = by_sweep[sweep_id]
        parents = [run for run in runs if run.data.tags[names.TAG_ROLE] == names.ROLE_SWEEP]
        children = {run.data.tags[names.TAG_TRIAL_ID]: run for run in runs if run not in parents}
        assert len(parents) == 1, "a sweep has one parent run"
        assert len(children) == len(runs) - 1, "a trial has two runs"
        assert set(children) == set(given.trials)
        assert parents[0].info.status == given.status
        assert not given.errors, "the callback kept errors from Tune"
        for trial_id, trial in given.trials.items():
            run = children[trial_id]
            assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
            found = store.points(run)
            counted = sum(number for (key, _, _), number in found.items() if key == NON_FINITE)
            assert counted == trial.non_finite, trial_id
            found = Counter({point: number for point, number in found.items() if point[0] != NON_FINITE})
            if trial_id in deleted:
                assert run.info.lifecycle_stage == "deleted"
                assert not found - trial.sure - trial.unsure
                continue
            assert run.info.lifecycle_stage == "active"
            assert run.info.status == trial.status, trial_id
            _assert_points(trial_id, found, trial)


def _assert_points(trial_id: str, found: Counter[Point], given: GivenTrial) -> None:
    lost = given.sure - found
    extra = found - given.sure - given.unsure
    assert not lost, f"{trial_id}: {lost.total()} of {given.sure.total()} points lost, such as {next(iter(lost))}"
    assert not extra, f"{trial_id}: {extra.total()} points too many, such as {next(iter(extra))}"
