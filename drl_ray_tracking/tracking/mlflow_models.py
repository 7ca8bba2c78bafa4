"""The models of an MLflow store: LoggedModels, through the client alone, found by tag before they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drl_ray_tracking.tracking.model_store import FoundModel, ModelSpec, legal_model_name

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_TYPE = "rllib-checkpoint"


def pages(search: Callable[..., Any]) -> Iterator[Any]:
    """Yields everything a paged search finds."""
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


class MlflowModels:
    """The `ModelStore` that is MLflow; `translated` turns its errors into the sink's two kinds."""

    def __init__(self, client: MlflowClient, translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._client = client
        self._translated = translated

    def find(self, experiment_id: str, tags: Mapping[str, str]) -> list[FoundModel]:
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        oldest_first = [{"field_name": "creation_timestamp", "ascending": True}]
        search = partial(self._client.search_logged_models, [experiment_id], query, order_by=oldest_first)
        with self._translated():
            return [FoundModel(str(one.model_id), dict(one.tags), str(one.status) == "READY") for one in pages(search)]

    def create(self, experiment_id: str, spec: ModelSpec) -> str:
        with self._translated():
            model = self._client.create_logged_model(
                experiment_id,
                name=legal_model_name(spec.name),
                source_run_id=spec.run_id,
                tags={**spec.tags, **spec.identity},
                model_type=_TYPE,
            )
        return str(model.model_id)

    def tag(self, model_id: str, tags: Mapping[str, str]) -> None:
        with self._translated():
            self._client.set_logged_model_tags(model_id, dict(tags))

    def upload(self, model_id: str, folder: Path) -> None:
        with self._translated():
            self._client.log_model_artifacts(model_id, str(folder))

    def finish(self, model_id: str) -> None:
        with self._translated():
            self._client.finalize_logged_model(model_id, "READY")

    def delete(self, model_id: str, run_id: str) -> bool:
        with self._translated():
            location = str(self._client.get_logged_model(model_id).artifact_location)
            # A version names what it was made of by one of three addresses; which, depends on who made it.
            queries = [f"run_id = '{run_id}'", *(f"source_path = '{at}'" for at in (location, f"models:/{model_id}"))]
            for query in queries:
                for version in self._client.search_model_versions(query):
                    if model_id in (version.model_id or "") or model_id in str(version.source):
                        return False
            self._client.delete_logged_model(model_id)
        return True
