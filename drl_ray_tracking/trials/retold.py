"""What a past trial went through, told again from Tune's files: its results, restarts and changes of parameters.

A function of the files alone, so that importing them twice adds nothing and reading them twice reads the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drl_ray_tracking import names
from drl_ray_tracking.fingerprint import config_hash, jsonable
from drl_ray_tracking.trials.identity import TrialIdentity, identify_trial
from drl_ray_tracking.trials.metrics import result_step
from drl_ray_tracking.trials.parameters import identifying_parameters
from drl_ray_tracking.trials.past import PastTrial, with_modules, without_addresses
from drl_ray_tracking.trials.redaction import redact
from drl_ray_tracking.trials.tracked import Tracked


@dataclass(frozen=True)
class Reported:
    """A result: finite values by their published names, on the env-steps axis."""

    time_ms: int
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Restarted:
    """The trial began again from what it was at `step`; results after that one no longer count."""

    time_ms: int
    step: int


@dataclass(frozen=True)
class Changed:
    """Parameters changed, or a donor's checkpoint was taken over; `initial` are the changed ones' first values."""

    time_ms: int
    step: int
    changed: Mapping[str, str]
    initial: Mapping[str, str]
    donor: str


@dataclass(frozen=True)
class Retold:
    """A past trial as its run is made.

    Attributes:
        identity: its tags, of the configuration it ended with (PBT changes it).
        tags: those of its sweep and its own, without its identity's.
        name: of the run, from the configuration it began with.
        params: what it began with.
        config: the configuration it began with, redacted.
        started_ms: Unix milliseconds, from Tune's whole seconds.
        went: what happened, in order; each at least a millisecond after the one before.
        lost: iterations of which Tune kept no result, although it, or PBT's file, knows of a later one.
    """

    identity: TrialIdentity
    tags: Mapping[str, str]
    name: str
    params: Mapping[str, str]
    config: Mapping[str, Any]
    started_ms: int
    went: tuple[Reported | Restarted | Changed, ...]
    lost: int


def retell(trial: PastTrial, tracked: Tracked, secrets: Sequence[str]) -> Retold:
    """Tells a past trial again.

    Args:
        trial: as Tune left it.
        tracked: how its sweep was tracked, or what is known in its place.
        secrets: values never to be written down.
    """

    def named(config: Any) -> Any:
        # Plain as while it ran: Tune's files hold NaN and Infinity, which are no JSON and belong to no hash.
        return with_modules(without_addresses(jsonable(config)), tracked.defaults.named, tracked.defaults.written)

    def params(config: Any) -> dict[str, str]:
        searched = redact(jsonable(trial.searched), secrets)
        return identifying_parameters(
            redact(named(config), secrets),
            tracked.defaults.named,
            searched,
            tracked.param_include,
            tracked.param_exclude,
        )

    def identified(config: Any) -> TrialIdentity:
        plain = redact(named(config), ())  # by names only: what another machine's secrets are is no identity
        shown = redact(named(config), secrets)
        return identify_trial(trial.trial_id, trial.trainable, shown, config_hash(plain), tags)

    tags = {**tracked.tags, **trial.tags()}
    config, began = trial.config(), identified(trial.config())
    results = list(trial.results())
    ended = trial.last_config() or (results[-1].get("config", config) if results else config)
    went = tuple(_went(results, ended, trial, tracked, params))
    return Retold(
        identity=began if ended == config else identified(ended),
        tags=tags,
        name=began.run_name(tracked.run_name),
        params=params(config),
        config=redact(named(config), secrets),
        started_ms=_started_ms(results, trial, went),
        went=went,
        lost=_lost(results, trial.donations),
    )


def _went(
    results: Sequence[Mapping[str, Any]], ended: Mapping[str, Any], trial: PastTrial, tracked: Tracked, params: Any
) -> Iterator[Reported | Restarted | Changed]:
    """Yields what happened.

    Tune writes whole seconds: each event is put at least a millisecond after the one before, so that readers can
    tell the results of an attempt from those it superseded.
    """
    clock = resumed = seen = 0
    config: Any = None
    current: dict[str, str] = {}
    first: dict[str, str] = {}
    steps: dict[int, int] = {}  # iteration -> step
    donations = list(trial.donations)
    for result in results:
        moment = max(clock + 1, result_time_ms(result, clock + 1))
        iteration = int(names.finite(result.get(names.ITERATION)) or 0)
        donor = ""
        if result.get("iterations_since_restore") == 1 and steps:
            resumed = max((step for done, step in steps.items() if done < iteration), default=0)
            yield Restarted(moment, resumed)
            moment += 1
            while donations and donations[0][0] <= seen:
                donor = donations.pop(0)[1]
        now, found = result.get("config"), current
        if isinstance(now, dict) and now != config:
            found, config = params(now), now
        changed, initial = _changes(first, current, found)
        if changed or donor:
            yield Changed(moment, resumed, changed, initial, donor)
            moment += 1
        current = found
        first = first or found
        step = steps[iteration] = result_step(result)
        seen = iteration
        yield Reported(moment, step, tracked.selection.select(result))
        clock = moment
    changed, initial = _changes(first, current, params(ended))
    if changed:  # it was started anew, and reported nothing more
        donor = next((donor for iteration, donor in reversed(donations) if iteration <= seen), "")
        yield Changed(clock + 1, max(steps.values()), changed, initial, donor)


def _changes(
    first: Mapping[str, str], current: Mapping[str, str], found: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the parameters that changed, and the first values of those that never had before."""
    changed = {key: value for key, value in found.items() if current and current.get(key) != value}
    return changed, {key: current[key] for key in changed if key in current and first.get(key) == current[key]}


def _lost(results: Sequence[Mapping[str, Any]], donations: Sequence[tuple[int, str]]) -> int:
    iterations = {int(names.finite(result.get(names.ITERATION)) or 0) for result in results}
    if not iterations:
        return 0
    last = max([*iterations, *(own for own, _ in donations)])  # PBT's own file knows how far the trial had come
    return last - min(iterations) + 1 - len(iterations)


def _started_ms(
    results: Sequence[Mapping[str, Any]], trial: PastTrial, went: Sequence[Reported | Restarted | Changed]
) -> int:
    result = results[0] if results else {}
    took = int(1000 * (names.finite(result.get("time_this_iter_s")) or 0.0)) + 1
    first = went[0].time_ms if went else result_time_ms(trial.last, took)
    return max(0, first - took)


def result_time_ms(result: Mapping[str, Any], otherwise: int) -> int:
    """Returns when a result was reported, Unix milliseconds; `otherwise` where it does not say."""
    seconds = names.finite(result.get("timestamp"))
    return otherwise if seconds is None else int(seconds * 1000)
