"""Where checkpoints end up: a store's models, as delivery needs them, and one in memory.

The rules are those of `sink`: one thing at a time, nothing retried, every call repeatable but `create`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

_ILLEGAL: Final = re.compile(r"[^\w \-]")
_LONGEST: Final = 200


@dataclass(frozen=True)
class ModelSpec:
    """A model to be made. `identity` are the tags it is found by later, all of which must match."""

    name: str
    identity: Mapping[str, str]
    tags: Mapping[str, str]
    run_id: str


@dataclass(frozen=True)
class FoundModel:
    """A model that exists: its id, its tags as they are now, and whether it is whole."""

    model_id: str
    tags: Mapping[str, str]
    ready: bool


class ModelStore(Protocol):
    """What delivery needs of a store's models."""

    def find(self, experiment_id: str, tags: Mapping[str, str]) -> list[FoundModel]:
        """Returns the models with all these tags, the oldest first."""
        ...

    def create(self, experiment_id: str, spec: ModelSpec) -> str:
        """Makes a model that is not ready yet and returns its id. The only call that is not repeatable."""
        ...

    def tag(self, model_id: str, tags: Mapping[str, str]) -> None:
        """Sets tags of a model."""
        ...

    def upload(self, model_id: str, folder: Path) -> None:
        """Uploads everything in a local folder as the model's files."""
        ...

    def finish(self, model_id: str) -> None:
        """Says that a model is whole."""
        ...

    def delete(self, model_id: str, run_id: str) -> bool:
        """Deletes a model of a run, unless a registered version was made of it; returns whether it is gone."""
        ...


def legal_model_name(name: str) -> str:
    """Returns a name that MLflow takes for a model and that is no path: other characters become dashes."""
    return _ILLEGAL.sub("-", name).strip()[:_LONGEST] or "model"


@dataclass
class MemoryModel:
    """A model in a `MemoryModels`."""

    experiment_id: str
    spec: ModelSpec
    tags: dict[str, str]
    files: dict[str, bytes] = field(default_factory=dict)
    points: set[Any] = field(default_factory=set)  # MetricPoints that name it
    ready: bool = False


@dataclass
class MemoryModels:
    """Models in memory, for tests, dry runs and trying things out."""

    models: dict[str, MemoryModel] = field(default_factory=dict)

    def find(self, experiment_id: str, tags: Mapping[str, str]) -> list[FoundModel]:
        return [
            FoundModel(model_id, dict(model.tags), model.ready)
            for model_id, model in self.models.items()
            if model.experiment_id == experiment_id and tags.items() <= model.tags.items()
        ]

    def create(self, experiment_id: str, spec: ModelSpec) -> str:
        model_id = f"m-{len(self.models)}"
        self.models[model_id] = MemoryModel(experiment_id, spec, {**spec.tags, **spec.identity})
        return model_id

    def tag(self, model_id: str, tags: Mapping[str, str]) -> None:
        self.models[model_id].tags.update(tags)

    def upload(self, model_id: str, folder: Path) -> None:
        files = self.models[model_id].files
        files.update({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})

    def finish(self, model_id: str) -> None:
        self.models[model_id].ready = True

    def delete(self, model_id: str, run_id: str) -> bool:
        self.models.pop(model_id, None)
        return True
