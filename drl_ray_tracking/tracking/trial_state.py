"""What the driver remembers of a trial between two of Tune's hooks, and what of it is worth an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from drl_ray_tracking import names
from drl_ray_tracking.tracking import events
from drl_ray_tracking.tracking.lineage import donor_of, learns_at_another_rate
from drl_ray_tracking.trials.endings import stopped_by

_STABILITY_ALERTS: Final = ("collapsed", "entropy_collapsed", "non_finite_losses")
_LEARNING_RATE: Final = "learning_rate"  # the alert: a learner does not use the rate that is configured


@dataclass
class TrialState:
    """One trial, as this driver has seen it."""

    trial: Any  # Tune's, for its status
    name: str  # the run's
    params: dict[str, str]
    stopped: bool = False  # by Tune, before it cleaned up
    lr: float | None = None  # the configured learning rate, where it is one number
    changed: set[str] = field(default_factory=set)  # parameters that have changed since the trial began
    donor: tuple[str, str] = ("", "")  # the trial and the checkpoint it last went on from, not its own
    stopped_by: str = ""  # why its last result was said to be its last
    last: events.Result | None = None
    held: list[tuple[int, int]] = field(default_factory=list)  # (event, step) of results without a checkpoint
    capture: str = ""  # "exact" or "none", once a result of RLlib has shown it
    trading_source: str = ""
    alerts: set[str] = field(default_factory=set)

    def begin(self, trial: Any, rate: float | None) -> None:
        """Takes note that the trial starts, or starts again."""
        self.trial, self.lr = trial, rate
        self.stopped, self.stopped_by = False, ""
        self.held.clear()
        self.alerts.discard(_LEARNING_RATE)

    def change(self, params: dict[str, str], step: int) -> events.Hparams | None:
        """Returns what PBT, PB2 or an edited restore changed, and whose checkpoint the trial goes on from."""
        changed = {key: value for key, value in params.items() if self.params.get(key) != value}
        donor = donor_of(self.trial)
        payload = None
        if changed or (donor != ("", "") and donor != self.donor):
            payload = events.Hparams(step=step, changed=changed)
            # Charts begin with the value the trial began with.
            initial = {key: self.params[key] for key in changed if key in self.params and key not in self.changed}
            if initial:
                payload["initial"] = initial
            if donor[0]:
                payload["donor"] = donor[0]
        self.changed |= set(changed)
        self.params, self.donor = params, donor
        return payload

    def take(self, result: Mapping[str, Any], payload: events.Result) -> None:
        """Takes note of a result, and tags the event made of it with the alerts it is the first to raise."""
        if raised := self._new_alerts(result):
            payload["tags"] = {f"{names.TAG_ALERT}.{alert}": str(payload["step"]) for alert in raised}
        self.stopped_by = stopped_by(self.trial, result)
        self.last = payload

    def _new_alerts(self, result: Mapping[str, Any]) -> set[str]:
        stability = result.get(names.STABILITY)
        found = {alert for alert in _STABILITY_ALERTS if isinstance(stability, Mapping) and stability.get(alert, 0) > 0}
        if learns_at_another_rate(result, self.lr):
            found.add(_LEARNING_RATE)
        raised = found - self.alerts
        self.alerts |= raised
        return raised

    def look_for_capture(self, result: Mapping[str, Any]) -> bool:
        """Notes how the algorithm is measured, and returns whether it is not: RLlib's own means of means, then."""
        if self.trading_source or not names.is_rllib_result(result):
            return False
        self.capture = "exact" if names.EVALUATED in result else "none"
        self.trading_source = str(result.get(names.TRADING_SOURCE, ""))
        return self.capture == "none"

    def covered(self, step: int) -> events.Release | None:
        """Returns which held results a checkpoint at a step lets go; None where it covers none."""
        events_up_to = [event for event, at in self.held if at <= step]
        return events.Release(upto=events_up_to[-1]) if events_up_to else None

    def released(self, release: events.Release) -> None:
        """Takes note that held results are on their way."""
        self.held = [(event, at) for event, at in self.held if event > release["upto"]]

    def last_tags(self, reason: str) -> dict[str, str]:
        """Returns what only the end of the trial can tell."""
        said = {names.TAG_CAPTURE: self.capture, names.TAG_TRADING_SOURCE: self.trading_source}
        return {key: value for key, value in said.items() if value} | {names.TAG_END_REASON: reason}
