"""What becomes of a trial's files: one series, its extremes, event files within bounds, names that stay in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drl_ray_tracking import names
from drl_ray_tracking.tracking import trial_files
from drl_ray_tracking.tracking.storage import below
from drl_ray_tracking.tracking.trial_files import LeftOutError, cut_extremes, fetch_folder, legal_tree, merge_series
from drl_ray_tracking.trials.place import storage_uri


def evaluation(folder: Path, iteration: int, *equities: list[float], **extra: Any) -> None:
    """Writes an evaluation of one episode an equity path, as the Algorithm process does."""
    folder.mkdir(exist_ok=True)
    rows: dict[str, list[Any]] = {"iteration": [], "step": [], "episode": [], "bar": [], "equity": []}
    for episode, equity in enumerate(equities):
        for bar, value in enumerate(equity):
            for key, item in zip(rows, (iteration, 100 * iteration, episode, bar, value), strict=True):
                rows[key].append(item)
    columns = rows | {key: [value] * len(rows["bar"]) for key, value in extra.items()}
    pq.write_table(pa.table(columns), folder / f"iteration-{iteration:06d}.parquet")


def test_evaluations_become_one_file_whatever_columns_each_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_files, "_ROWS_AT_ONCE", 4)
    source = tmp_path / "drl_series"
    evaluation(source, 1, [1.0, 2.0], [1.0, 1.5, 1.0], timestamp=1.5e9)
    evaluation(source, 2, [1.0, 3.0], timestamp="2020-01-01", leverage=2.0)
    evaluation(source, 3, [1.0], timestamp=1.5e9)
    (source / "iteration-000004.parquet").write_bytes(b"PAR1 half a fi")
    assert merge_series(source, tmp_path / "merged.parquet")
    file = pq.ParquetFile(tmp_path / "merged.parquet")
    assert file.num_row_groups == 2, "written as it is read, no evaluation cut in two"
    table = file.read().to_pydict()
    assert table["iteration"] == [1] * 5 + [2] * 2 + [3]
    assert table["leverage"] == [None] * 5 + [2.0] * 2 + [None]
    assert set(table["timestamp"]) == {"1500000000", "2020-01-01"}, "numbers here and text there are text"


def test_the_best_and_the_worst_episode_of_all_evaluations(tmp_path: Path) -> None:
    source = tmp_path / "drl_series"
    evaluation(source, 1, [10.0, 11.0], [10.0, 30.0, 20.0], reward=0.5)
    evaluation(source, 2, [10.0, 20.0], [10.0, -1.0, 500.0], [float("nan")], [10.0, 19.0, float("nan")], reward=0.25)
    merged = fetch_folder(names.SERIES_ARTIFACT, str(source), _new(tmp_path))
    assert merged is not None
    assert {path.name for path in merged.iterdir()} == {
        names.SERIES_FILE,
        names.BEST_EPISODE_FILE,
        names.WORST_EPISODE_FILE,
    }
    best = pq.read_table(merged / names.BEST_EPISODE_FILE).to_pydict()
    assert (best["iteration"][0], best["episode"][0]) == (1, 1), "of two with the same return the earlier"
    assert best["equity"] == [10.0, 30.0, 20.0] and best["reward"] == [0.5] * 3
    worst = pq.read_table(merged / names.WORST_EPISODE_FILE).to_pydict()
    assert (worst["iteration"][0], worst["episode"][0]) == (2, 1), "what fell below zero has lost everything"


def _new(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_a_series_without_what_extremes_need_is_kept_all_the_same(tmp_path: Path) -> None:
    source = tmp_path / "drl_series"
    source.mkdir()
    pq.write_table(pa.table({"iteration": [1], "reward": [0.5]}), source / "iteration-000001.parquet")
    merged = fetch_folder(names.SERIES_ARTIFACT, str(source), _new(tmp_path))
    assert merged is not None and [path.name for path in merged.iterdir()] == [names.SERIES_FILE]
    cut_extremes(_empty_equity(tmp_path), tmp_path)
    assert not (tmp_path / names.BEST_EPISODE_FILE).exists(), "nothing is known: nothing is best"


def _empty_equity(tmp_path: Path) -> Path:
    table = pa.table({"iteration": [1], "episode": [0], "equity": [float("nan")]})
    pq.write_table(table, tmp_path / "unknown.parquet")
    return tmp_path / "unknown.parquet"


def test_extremes_are_those_of_a_naive_search(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    source = tmp_path / "drl_series"
    returns = {}
    for iteration in range(1, 12):
        paths = [list(1e4 * np.cumprod(1.0 + rng.normal(0.0, 0.1, rng.integers(2, 30)))) for _ in range(3)]
        evaluation(source, iteration, *paths)
        returns |= {(iteration, number): path[-1] / path[0] for number, path in enumerate(paths)}
    merged = fetch_folder(names.SERIES_ARTIFACT, str(source), _new(tmp_path))
    assert merged is not None
    for file, choose in ((names.BEST_EPISODE_FILE, max), (names.WORST_EPISODE_FILE, min)):
        found = pq.read_table(merged / file).to_pydict()
        assert (found["iteration"][0], found["episode"][0]) == choose(returns, key=lambda key: returns[key])


def test_event_files_are_taken_and_nothing_else_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "trial"
    (source / "checkpoint_000001").mkdir(parents=True)
    (source / "checkpoint_000001" / "events.out.tfevents.9").write_bytes(b"another's")
    (source / "result.json").write_text("{}")
    assert fetch_folder(names.TENSORBOARD_ARTIFACT, str(source), _new(tmp_path)) is None
    (source / "events.out.tfevents.1.host").write_bytes(b"x" * 60)
    (source / "events.out.tfevents.2.host").write_bytes(b"y" * 60)
    found = fetch_folder(names.TENSORBOARD_ARTIFACT, str(source), tmp_path / "scratch")
    assert found is not None
    assert {path.name: path.read_bytes()[:1] for path in found.iterdir()} == {
        "events.out.tfevents.1.host": b"x",
        "events.out.tfevents.2.host": b"y",
    }
    assert fetch_folder(names.TENSORBOARD_ARTIFACT, str(tmp_path / "nowhere"), tmp_path / "scratch") is None
    monkeypatch.setattr(trial_files, "MAX_TENSORBOARD_BYTES", 100)
    with pytest.raises(LeftOutError, match="2 TensorBoard event files"):
        fetch_folder(names.TENSORBOARD_ARTIFACT, str(source), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_names_that_a_store_would_mangle_are_escaped_in_a_copy(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    (plain / "deep er").mkdir(parents=True)
    (plain / "deep er" / "ünï 漢字.txt").write_text("kept")
    assert legal_tree(plain, tmp_path) == plain
    hostile = tmp_path / "hostile"
    (hostile / "100%").mkdir(parents=True)
    for name in ("#1?.txt", "a%2fb", "new\nline", " padded ", "back\\slash", "C:"):
        (hostile / "100%" / name).write_text(name)
    copied = legal_tree(hostile, tmp_path)
    assert copied != hostile
    there = {names.original_metric_name(path.name): path.read_text() for path in copied.rglob("*") if path.is_file()}
    assert there == {name: name for name in ("#1?.txt", "a%2fb", "new\nline", " padded ", "back\\slash", "C:")}
    assert {path.parent.name for path in copied.rglob("*") if path.is_file()} == {"100_x25_"}


@pytest.mark.parametrize("name", ["a b", "a%2fb", "ünï", "q?x", "h#y", "[x]", "lr=0.1,seed=3"])
def test_an_address_in_remote_storage_can_be_opened_again(name: str) -> None:
    from pyarrow.fs import FileSystem, LocalFileSystem, S3FileSystem, SubTreeFileSystem

    remote = S3FileSystem(endpoint_override="127.0.0.1:9", scheme="http", region="us-east-1", anonymous=True)
    address = below(storage_uri(remote, f"bucket/{name}"), "drl_series")
    _, path = FileSystem.from_uri(address)
    assert path == f"bucket/{name}/drl_series"
    local = SubTreeFileSystem("/tmp", LocalFileSystem())
    assert below(storage_uri(local, f"/x/{name}"), "drl_series") == f"/x/{name}/drl_series"
