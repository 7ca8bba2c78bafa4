"""What a courier has delivered of a journal and what still waits: plain JSON, so that it survives the process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from drl_ray_tracking.tracking.checkpoints import CheckpointProgress

SWEEP_RUN: Final = ""  # stands for the parent run where a trial id stands for a child


@dataclass
class Progress:
    """What has been delivered; survives the courier as JSON beside the journal."""

    acked: int = 0
    experiment_id: str | None = None
    sweep_id: str | None = None
    epoch: int = 0
    runs: dict[str, str] = field(default_factory=dict)  # trial id, or SWEEP_RUN -> run id, open or ended
    folds: dict[str, str] = field(default_factory=dict)  # fold -> run id
    open_trials: list[str] = field(default_factory=list)
    epochs: dict[str, int] = field(default_factory=dict)  # of trials resumed apart from their sweep
    pools: dict[str, dict[str, list[Any]]] = field(default_factory=dict)  # trial -> split -> [pool, first, last event]
    pooled: dict[str, int] = field(default_factory=dict)  # trial -> its last episode that was taken up
    made: dict[str, int] = field(default_factory=dict)  # trial whose run this journal made -> points kept of it
    storages: dict[str, str] = field(default_factory=dict)  # open trial -> where its files are in Tune's storage
    refused: dict[str, str] = field(default_factory=dict)  # trial id, or SWEEP_RUN -> why its run takes nothing
    uploads: list[int] = field(default_factory=list)  # events whose files are still to be uploaded
    malformed: int = 0  # events, or their files, that could not be understood
    held: dict[str, int] = field(default_factory=dict)  # trial -> its first event that waits for a checkpoint
    losses: dict[str, int] = field(default_factory=dict)  # LOSS event -> how many events it says are gone
    last_results: dict[str, list[int]] = field(default_factory=dict)  # trial -> [step, Unix ms] of its last result
    result_times: dict[str, int] = field(default_factory=dict)  # waiting CHECKPOINT event -> Unix ms of its result
    checkpoints: CheckpointProgress = field(default_factory=CheckpointProgress)
    orphans: list[str] = field(default_factory=list)  # trials whose files nobody will announce: the driver is dead
    pictures: bool = False  # whether this sweep wants any
    drawing: list[str] = field(default_factory=list)  # ended trials whose pictures are still to be drawn
    drawn: int = 0  # trials that were drawn
    opening: dict[str, Any] | None = None  # where to deliver, should the event that says it be damaged
    points: int = 0  # sent, repeated ones included
    session: bool = False  # whether other processes may have a part in the sweep
    last_ms: int = 0  # when the driver last said anything, as far as it is delivered
    pieces: int = 0  # of events that take many requests: has anything moved since the last failure?
    ended: bool = False

    @property
    def lost(self) -> int:
        """How many events never came into the journal, were damaged in it, or could not be understood."""
        return sum(self.losses.values()) + self.malformed

    @property
    def reached(self) -> tuple[int, int, int]:
        """How far delivery has come: what changes between two failures of a store that fails now and then."""
        return (self.acked, len(self.runs), self.pieces)

    @property
    def files_left(self) -> int:
        """How many events, trials and checkpoints still wait for the upload of their files; pictures do not count."""
        return len(self.uploads) + len(self.orphans) + len(self.checkpoints.waiting)

    def epoch_of(self, trial: str) -> int:
        """Returns the epoch in which this journal's driver has a run."""
        return self.epochs.get(trial, self.epoch)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON that `from_json` restores: a view of what is here, to be written at once.

        Not `asdict`, which copies all of it, run by run, at every word of the courier's.
        """
        return {**vars(self), "checkpoints": vars(self.checkpoints)}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Progress:
        """Restores what `to_json` returned; unknown keys are ignored."""
        known = {key: value for key, value in state.items() if key in cls.__dataclass_fields__}
        known["checkpoints"] = CheckpointProgress.from_json(known.get("checkpoints", {}))
        return cls(**known)
