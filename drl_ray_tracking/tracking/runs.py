"""The runs of one sweep in a store: found or made once, ended by the driver they belong to, given up where they refuse.

A run belongs to the latest driver that opened it (tag `drl.epoch`). A courier of an earlier driver may
still be draining after a restore: it adds what is missing, but changes no status and no other tag.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from drl_ray_tracking import names
from drl_ray_tracking.tracking.growing_tags import merged_attempts
from drl_ray_tracking.tracking.progress import SWEEP_RUN, Progress
from drl_ray_tracking.tracking.sink import RunSpec, Sink, SinkRefusedError, SinkUnavailableError

_log = logging.getLogger(__name__)
FOLD: Final = "fold/"  # + a fold: stands for its run where a trial id stands for a child
Exclusive = Callable[[str], AbstractContextManager[object]]


class Runs:
    """Opens, ends and guards runs by trial id; `SWEEP_RUN` stands for the parent."""

    def __init__(self, sink: Sink, progress: Progress, exclusive: Exclusive, is_shared: Callable[[str], bool]) -> None:
        """Takes the store, what is known of it, what makes finding a run and making it one step, and who else is there.

        `is_shared` tells of a sweep whether another process on this machine has a part in it.
        """
        self._sink = sink
        self._progress = progress
        self._exclusive = exclusive
        self._is_shared = is_shared
        self._is_alone = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps this machine's other couriers from the sweep's runs: from looking at a run to writing what follows.

        May be entered again inside.

        Raises:
            SinkUnavailableError: there is no descriptor or no room for a lock; that passes.
        """
        sweep_id = self._progress.sweep_id
        if self._is_alone or sweep_id is None:
            yield
            return
        with ExitStack() as held:
            try:
                held.enter_context(self._exclusive(sweep_id))
            except OSError as error:
                raise SinkUnavailableError(f"the runs of sweep {sweep_id} cannot be locked: {error}") from error
            self._is_alone = True
            held.callback(setattr, self, "_is_alone", False)
            yield

    def takes(self, trial: str) -> str | None:
        """Returns the id of a trial's run, or None where there is none or it takes nothing more."""
        if trial in self._progress.refused:
            return None
        is_fold = trial.startswith(FOLD)
        return self._progress.folds.get(trial.removeprefix(FOLD)) if is_fold else self._progress.runs.get(trial)

    def identity(self, role: str) -> dict[str, str]:
        """Returns the tags that a run of this sweep is found by.

        Raises:
            ValueError: the journal has not said which sweep this is.
        """
        if self._progress.sweep_id is None:
            raise ValueError("the journal lacks the event that names its sweep")
        return {names.TAG_SWEEP_ID: self._progress.sweep_id, names.TAG_ROLE: role}

    def open(self, trial: str, spec: RunSpec, attempt: Mapping[int, int]) -> tuple[str, bool]:
        """Finds the run, or makes it: returns its id and whether it was made.

        `attempt` maps when it started (Unix ms) to the step it resumed from.
        """
        experiment_id = self._experiment()
        epoch = self._progress.epoch_of(trial)
        with self.alone():
            found = self._sink.find_run(experiment_id, spec.identity)
            attempts = merged_attempts(found.tags if found else {}, attempt)
            tags = {**spec.tags, **attempts, names.TAG_EPOCH: str(epoch)}
            if found is None:
                return self._sink.create_run(experiment_id, replace(spec, tags=tags)), True
            if found.tags.get(names.TAG_HISTORIES):
                self._sink.log(found.run_id, tags={names.TAG_HISTORIES: ""})  # before anything is added
            if self.owns(trial, found.tags):
                self._sink.reopen_run(found.run_id, tags)
            elif attempts:
                self._sink.log(found.run_id, tags=attempts)
            return found.run_id, False

    def above(self, trial: str, name: str, start_ms: int) -> str:
        """Returns the id of a run that others are nested below; one that has not arrived yet is made for it to find."""
        experiment_id = self._experiment()
        identity = self.identity(names.ROLE_TRIAL) | {names.TAG_TRIAL_ID: trial}
        tags = {names.TAG_EPOCH: "0"}  # its own driver takes it over
        spec = RunSpec(name, identity, tags, start_ms, self._progress.runs.get(SWEEP_RUN))
        with self.alone():
            found = self._sink.find_run(experiment_id, identity)
            return found.run_id if found is not None else self._sink.create_run(experiment_id, spec)

    def owns(self, trial: str, tags: Mapping[str, str]) -> bool:
        """Tells whether no later driver has opened a trial's run, which has these tags."""
        epoch = tags.get(names.TAG_EPOCH, "")
        return not epoch.isdecimal() or int(epoch) <= self._progress.epoch_of(trial)

    def tag(self, trial: str, tags: Mapping[str, str]) -> None:
        """Sets tags of a run; one that a later driver has opened only gets those it lacks."""

        def write(run_id: str) -> None:
            with self.alone():
                there = self._sink.read_tags(run_id)
                new = tags if self.owns(trial, there) else {key: tags[key] for key in tags if key not in there}
                self._sink.log(run_id, tags=new)

        self.guarded(trial, write)

    def end(self, trial: str, status: str, end_ms: int, tags: Mapping[str, str]) -> None:
        """Sets a run's status and last tags, unless a later driver has it."""

        def end(run_id: str) -> None:
            with self.alone():
                if self.owns(trial, self._sink.read_tags(run_id)):
                    self._sink.log(run_id, tags=tags)
                    self._sink.set_status(run_id, status, end_ms)

        self.guarded(trial, end)

    def folds(self) -> list[str]:
        """Returns what stands for each fold's run."""
        return [FOLD + fold for fold in self._progress.folds]

    def end_sweep(self, status: str, end_ms: int, tags: Mapping[str, str]) -> None:
        """Ends the parent run, unless another process on this machine still has a part in the sweep."""
        sweep_id = self._progress.sweep_id
        if sweep_id is None:
            return
        with self.alone():
            if not self._is_shared(sweep_id):
                if self._progress.session:
                    status, end_ms, tags = self._last_word(status, end_ms, tags)
                self.end(SWEEP_RUN, status, end_ms, tags)

    def _last_word(self, status: str, end_ms: int, tags: Mapping[str, str]) -> tuple[str, int, Mapping[str, str]]:
        """Returns how a session ended: its processes may be delivered in any order, the one that spoke last counts."""
        run_id = self.takes(SWEEP_RUN)
        said = self._sink.read_tags(run_id).get(names.TAG_SESSION_END, "") if run_id is not None else ""
        moment, _, other = said.partition(" ")
        if moment.isdecimal() and int(moment) > self._progress.last_ms:
            return other, int(moment), {}
        return status, end_ms, {**tags, names.TAG_SESSION_END: f"{self._progress.last_ms} {status}"}

    def take_back(self) -> None:
        """Opens again what was taken for dead."""
        tags = {names.TAG_END_REASON: names.END_NOT_YET}
        for trial in [*self._progress.open_trials, *self.folds(), SWEEP_RUN]:
            self.guarded(trial, lambda run_id: self._sink.reopen_run(run_id, tags))

    def left_out(self, why: str, count: int = 1) -> None:
        """Counts events, or what came with them, that could not be understood, and says so on the parent run.

        Raises:
            SinkUnavailableError: it cannot be said now, and is not counted: leave it out again.
        """
        said = f"{self._progress.lost + count} events lost: {why[:1000]}"
        self.tag(SWEEP_RUN, {names.TAG_DEGRADED: said})
        self._progress.malformed += count

    def _experiment(self) -> str:
        experiment_id = self._progress.experiment_id
        if experiment_id is None or self._progress.sweep_id is None:
            raise ValueError("the journal lacks the event that opens its experiment")
        return experiment_id

    def guarded(self, trial: str, call: Callable[[str], None]) -> None:
        """Runs a call on a trial's run; a run that refuses for good is given up, the others flow on."""
        run_id = self.takes(trial)
        if run_id is None:
            return
        try:
            call(run_id)
        except SinkRefusedError as error:
            self.give_up(trial, error)

    def give_up(self, trial: str, error: SinkRefusedError) -> None:
        """Marks a run that takes nothing more.

        Raises:
            SinkRefusedError: the experiment itself is refused, and with it every run: then nothing is given
                up, everything waits until it is restored.
        """
        self._sink.open_experiment(None, self._progress.experiment_id, None)
        _log.error("the run of %s takes nothing more: %s", f"trial {trial}" if trial else "the sweep", error)
        self._progress.refused[trial] = str(error)
