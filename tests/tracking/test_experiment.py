"""Manual runs: a plain gymnasium loop, tracked; ended in every way, resumed, killed, compared with one another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from drl_ray_tracking import EpisodeRecord, EpisodeSummary, ExperimentService, RecordEpisodes, compare, load_runs, names
from drl_ray_tracking.episodes.summary import merge_all
from drl_ray_tracking.errors import ConfigurationError
from drl_ray_tracking.tracking.journal import journals, read_events
from tests.network import free_port
from tests.servers import Server, running
from tests.waiting import wait_until

pytestmark = pytest.mark.mlflow


def played(seed: int, episodes: int) -> list[EpisodeRecord]:
    records: list[EpisodeRecord] = []
    env = RecordEpisodes(gym.make("CartPole-v1"), on_episode=records.append)
    env.action_space.seed(seed)
    for episode in range(episodes):
        env.reset(seed=seed + episode)
        done = False
        while not done:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            done = bool(terminated or truncated)
    env.close()  # type: ignore[no-untyped-call]
    return records


def run_of(uri: str, name: str) -> Any:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("manual")
    assert experiment is not None
    found = [run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == name]
    assert len(found) == 1, f"{len(found)} runs of the name {name}"
    return found[0]


def history(uri: str, run: Any, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run.info.run_id, key)]


def test_a_loop_of_ones_own_has_the_exact_kpis_and_can_be_compared(
    tmp_path: Path, sqlite_store: Callable[[], str]
) -> None:
    import matplotlib.pyplot as plt

    uri = sqlite_store()
    with ExperimentService(uri, experiment_name="manual", session="notebook", tags={"team": "a"}) as service:
        for seed in (1, 2, 3):
            with service.start_run(f"random-{seed}", params={"lr": 0.1, "seed": seed}) as run:
                records = played(seed, 6)
                for number, record in enumerate(records[:4]):
                    run.log_episode(record, step=100 * (1 + number // 2))
                for record in records[4:]:
                    run.log_episode(record, step=200, split="eval")
                run.log_metrics({"train/loss": 0.5, "nothing": float("nan")}, step=100)
                run.log_metrics({"train/loss": 0.25}, step=200)
                run.log_params({"note": "by hand"})
                run.set_tags({"mood": "good"})
                run.log_text("remember", "notes/one.txt")
                run.note("wide stops")
                run.note("wider still")
                figure = plt.figure()
                run.log_figure(figure, "pictures/empty.png")
                plt.close(figure)
                (tmp_path / "table.csv").write_text(f"seed\n{seed}\n")
                run.log_artifact(tmp_path / "table.csv")
                (tmp_path / "table.csv").write_text("changed afterwards")
                (tmp_path / "weights").mkdir(exist_ok=True)
                run.log_checkpoint(tmp_path / "weights", 200)
                with pytest.raises(ConfigurationError, match="leads out"):
                    run.log_text("x", "../../x/y.txt")
        assert service.close()
    run = run_of(uri, "random-2")
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1", "seed": "2", "note": "by hand"}
    assert (run.data.tags["team"], run.data.tags["mood"], run.data.tags[names.TAG_SEED]) == ("a", "good", "2")
    assert history(uri, run, "train/loss") == [(100, 0.5), (200, 0.25)]
    assert "nothing" not in run.data.metrics
    assert run.data.metrics["tracker/non_finite_values"] == 1.0
    description = run.data.tags["mlflow.note.content"]
    assert description.index("wide stops") < description.index("wider still")
    records = played(2, 6)
    for split, step, chosen in (("train", 100, records[:2]), ("train", 200, records[2:4]), ("eval", 200, records[4:])):
        expected = merge_all([EpisodeSummary.of(record) for record in chosen]).compute()
        assert expected["episode/return_mean"] == sum(record.episode_return for record in chosen) / 2
        for name in ("episode/return_mean", "episode/count", "episode/return_sd"):
            assert dict(history(uri, run, f"{split}/{name}"))[step] == expected[name]
    client = MlflowClient(uri)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "notes", "pictures", "table.csv", names.HISTORIES_ARTIFACT,
    }  # fmt: skip
    (tmp_path / "out").mkdir()
    table = client.download_artifacts(run.info.run_id, "table.csv", str(tmp_path / "out"))
    assert Path(table).read_text() == "seed\n2\n", "as it was when it was logged"
    (pointer,) = client.search_logged_models(
        [run.info.experiment_id], f"tags.`{names.TAG_MODEL_RUN}` = '{run.info.run_id}'"
    )
    assert pointer.tags[names.TAG_CHECKPOINT_URI] == str(tmp_path / "weights")
    done = compare(load_runs(uri, "manual"), metric="eval/episode/return_mean")
    assert (len(done.groups), int(done.groups["n_seeds"].iloc[0])) == (1, 3)


def test_numbers_of_numpy_and_scores_that_are_none_hold_up_nothing(
    sqlite_store: Callable[[], str], tmp_path: Path
) -> None:
    uri = sqlite_store()
    with ExperimentService(uri, experiment_name="manual") as service:
        with service.start_run("first") as run:
            run.log_checkpoint(tmp_path, np.int64(5), score=float("nan"))  # type: ignore[arg-type]
            run.log_episode(played(1, 1)[0], step=np.int64(100))  # type: ignore[arg-type]
            run.log_metrics({"a": 1}, step=200)
        with service.start_run(resume=run.id, at_step=np.int64(100)) as again:  # type: ignore[arg-type]
            again.log_metrics({"a": 2}, step=200)
        assert service.close()
    found = run_of(uri, "first")
    assert (found.info.status, found.data.metrics["a"]) == ("FINISHED", 2.0)
    assert [step for step, _ in history(uri, found, "train/episode/return_mean")] == [100]
    assert names.TAG_DEGRADED not in run_of(uri, service.session).data.tags


def test_how_a_run_ends(sqlite_store: Callable[[], str]) -> None:
    uri = sqlite_store()
    service = ExperimentService(uri, experiment_name="manual")
    with pytest.raises(ZeroDivisionError), service.start_run("broken") as run:
        run.log_metrics({"a": 1}, step=1)
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), service.start_run("stopped"):
        raise KeyboardInterrupt
    with pytest.raises(ConfigurationError, match="has ended"):
        run.log_metrics({"a": 2}, step=2)
    assert service.close()
    broken, stopped = run_of(uri, "broken"), run_of(uri, "stopped")
    assert (broken.info.status, stopped.info.status) == ("FAILED", "KILLED")
    assert broken.data.tags[names.TAG_ERROR] == "ZeroDivisionError: division by zero"
    files = {file.path for file in MlflowClient(uri).list_artifacts(broken.info.run_id)}
    assert files == {names.ERROR_ARTIFACT, names.HISTORIES_ARTIFACT}


KILLED = """
import os, signal, sys
from drl_ray_tracking import ExperimentService
from drl_ray_tracking.episodes import EpisodeRecord
service = ExperimentService(sys.argv[1], experiment_name="manual", session="research")
resume = {"resume": "long"} if len(sys.argv) > 2 else {}
run = service.start_run("long", params={"lr": 1}, **resume)
start = run.resumed_step
for step in range(start + 1, start + 6):
    run.log_metrics({"loss": 1.0 / step}, step=step)
    run.log_episode(EpisodeRecord(float(step), 1), step=start + 1)
    run.log_episode(EpisodeRecord(float(step), 1), step=start + 1, split="eval")
run.set_tags({f"tag-{start}": start})
run.log_params({f"param-{start}": start})
run.note(f"killed after {start + 5}")
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(uri: str, *resume: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, uri, *resume], check=False)
    assert done.returncode == -signal.SIGKILL


def assert_whole(uri: str, last: int) -> None:
    """Asserts that the run killed after every fifth step, up to `last`, and then ended, has everything once."""
    run = run_of(uri, "long")
    assert run.info.status == "FINISHED"
    assert history(uri, run, "loss") == [(step, 1.0 / step) for step in range(1, last + 1)]
    for split in ("train", "eval"):
        for measured, expected in (("count", 5.0), ("return_max", None)):
            points = history(uri, run, f"{split}/episode/{measured}")
            starts = range(0, last - 1, 5)
            assert points == [(start + 1, expected or start + 5.0) for start in starts], (split, measured)
    starts = range(0, last - 1, 5)
    assert {f"tag-{start}" for start in starts} <= run.data.tags.keys()
    assert run.data.params == {"lr": "1", **{f"param-{start}": str(start) for start in starts}}
    assert all(f"killed after {start + 5}" in run.data.tags["mlflow.note.content"] for start in starts)
    runs = load_runs(uri, "manual", metrics=["loss"])
    assert list(runs.run_history("loss", run.info.run_id).index) == list(range(1, last + 1)), "nothing is superseded"
    parent = MlflowClient(uri).get_run(run.data.tags["mlflow.parentRunId"])
    assert (parent.info.run_name, parent.info.status) == ("research", "FINISHED")


@pytest.mark.faults
def test_killed_and_resumed_at_once_again_and_again_nothing_is_lost_or_there_twice(
    sqlite_store: Callable[[], str],
) -> None:
    uri = sqlite_store()
    killed(uri)
    killed(uri, "resume")  # at once: the courier of the first is still at work
    wait_until(lambda: not journals_left(), timeout_s=90, what="what the killed scripts wrote is delivered")
    assert run_of(uri, "long").info.status == "KILLED"
    run_id = run_of(uri, "long").info.run_id
    killed(uri, "resume")
    with ExperimentService(uri, experiment_name="manual") as service:
        with service.start_run(resume=run_id) as run:
            assert (run.name, run.resumed_step) == ("long", 15)
            with pytest.raises(ConfigurationError, match="still runs"):
                service.start_run(resume="long")
            run.log_metrics({"loss": 1.0 / 16}, step=16)
        with pytest.raises(ConfigurationError, match="has no run 'nobody'"):
            service.start_run(resume="nobody")
    wait_until(lambda: not journals_left(), timeout_s=90, what="everything is delivered")
    assert run_of(uri, "long").info.run_id == run_id
    assert_whole(uri, 16)


def test_what_a_loop_repeats_from_its_own_checkpoint_is_superseded(sqlite_store: Callable[[], str]) -> None:
    uri = sqlite_store()
    with ExperimentService(uri, experiment_name="manual") as service:
        with service.start_run("again") as run:
            for step in range(1, 6):
                run.log_metrics({"loss": float(step)}, step=step)
        with service.start_run(resume=run.id, at_step=3) as run:
            assert run.resumed_step == 3
            for step in range(4, 7):
                run.log_metrics({"loss": 10.0 * step}, step=step)
        with pytest.raises(ConfigurationError, match="give `resume`"):
            service.start_run("new", at_step=3)
    runs = load_runs(uri, "manual", metrics=["loss"])
    assert runs.run_history("loss", run_of(uri, "again").info.run_id).to_dict() == {
        1: 1.0, 2: 2.0, 3: 3.0, 4: 40.0, 5: 50.0, 6: 60.0,
    }  # fmt: skip


@pytest.mark.faults
def test_killed_and_resumed_without_a_server_everything_is_delivered_once_there_is_one(tmp_path: Path) -> None:
    server = Server(tmp_path)
    with ExperimentService(server.address, experiment_name="manual", drain_timeout_s=0.5) as service:
        with pytest.raises(ConfigurationError, match="no journal on this machine has it"):
            service.start_run(resume="nobody")
        with service.start_run("offline") as run:
            run.log_metrics({"loss": 1.0}, step=1)
        assert not service.close()
    killed(server.address)
    killed(server.address, "resume")
    with (
        ExperimentService(server.address, experiment_name="manual", drain_timeout_s=0.5) as service,
        service.start_run(resume="long") as run,
    ):
        assert run.resumed_step == 10
        run.log_metrics({"loss": 1.0 / 11}, step=11)
    assert len(list(journals())) == 4
    with running(server):
        wait_until(lambda: not journals_left(), timeout_s=180, what="the couriers deliver what waited")
        assert history(server.address, run_of(server.address, "offline"), "loss") == [(1, 1.0)]
        assert_whole(server.address, 11)


TOGETHER = """
import sys
from drl_ray_tracking import ExperimentService
uri, name, go_on = sys.argv[1:]
with ExperimentService(uri, experiment_name="manual", session="night") as service:
    with service.start_run(name, params={"seed": name[-1], "lr": 0.1}) as run:
        with run.start_run(f"{name}-fold"):
            pass
        with service.start_run(f"{name}-check", parent="night-shift") as check:
            check.log_metrics({"loss": 2.0}, step=1)
        run.log_metrics({"loss": 1.0}, step=1)
        print("ready", flush=True)
        sys.stdin.readline()
"""


@pytest.mark.faults
def test_processes_of_one_session_share_its_parent_run_and_the_last_ends_it(sqlite_store: Callable[[], str]) -> None:
    uri = sqlite_store()

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", TOGETHER, uri, name, ""]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def leave(process: subprocess.Popen[str]) -> None:
        process.communicate("\n", timeout=120)
        assert process.returncode == 0

    with ExperimentService(uri, experiment_name="manual", session="night") as service:
        above = service.start_run("night-shift")
        first, second, third = (start(f"worker-{number}") for number in range(3))
        for process in (first, second, third):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        leave(first)
        above.end()
        assert service.close()
    assert run_of(uri, "night").info.status == "RUNNING", "two are still there"
    second.kill()
    second.communicate()
    wait_until(lambda: run_of(uri, "worker-1").info.status == "KILLED", timeout_s=60, what="its courier notices")
    assert run_of(uri, "night").info.status == "RUNNING"
    leave(third)
    wait_until(lambda: not journals_left(), timeout_s=60, what="everything is delivered")
    parent = run_of(uri, "night")
    assert parent.info.status == "FINISHED"
    for number in range(3):
        run = run_of(uri, f"worker-{number}")
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run_of(uri, f"worker-{number}-fold").data.tags["mlflow.parentRunId"] == run.info.run_id
        check = run_of(uri, f"worker-{number}-check")
        assert check.data.tags["mlflow.parentRunId"] == run_of(uri, "night-shift").info.run_id
        assert check.data.tags[names.TAG_SWEEP_RUN] == parent.info.run_id
        assert history(uri, check, "loss") == [(1, 2.0)]
    done = compare(load_runs(uri, "manual"), metric="loss")
    assert int(done.groups["n_seeds"].max()) == 2, "a killed run is no result"


def test_a_fork_is_told_to_join_by_itself(sqlite_store: Callable[[], str]) -> None:
    with ExperimentService(sqlite_store(), experiment_name="manual") as service, service.start_run("forked") as run:
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                run.log_metrics({"loss": 1.0}, step=1)
            except ConfigurationError as error:
                os.write(tell, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(tell)
        assert f"session={service.session!r}" in os.read(told, 10_000).decode()
        os.close(told)


def test_a_parameter_cannot_change_and_defines_the_group(sqlite_store: Callable[[], str]) -> None:
    uri = sqlite_store()
    with ExperimentService(uri, experiment_name="manual") as service:
        for seed in (1, 2):
            with service.start_run(f"late-{seed}") as run:
                run.log_params({"lr": 0.1, "seed": seed})
                with pytest.raises(ConfigurationError, match=r"lr is '0.1', not '0.2'"):
                    run.log_params({"lr": 0.2})
        with service.start_run("early", params={"lr": 0.1, "seed": 3}):
            pass
    hashes = {run_of(uri, name).data.tags[names.TAG_CONFIG_HASH] for name in ("late-1", "late-2", "early")}
    assert len(hashes) == 1


def test_no_server_has_to_be_there() -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    with ExperimentService(uri, experiment_name="manual", drain_timeout_s=0.5) as service:
        with service.start_run("offline") as run:
            run.log_metrics({"loss": 1.0}, step=1)
        assert not service.close()
    (journal,) = journals()
    kinds = [event.kind for event in read_events(journal, after=0, limit=100)]
    assert kinds == ["open", "sweep", "trial", "result", "trial_end", "sweep_end"]


def journals_left() -> list[Path]:
    return list(journals())
