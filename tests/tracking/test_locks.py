"""Locks and forks: a forked child, which a loop's own workers are, keeps none of its parent's."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from drl_ray_tracking.tracking.journal import JournalWriter, driver_is_alive, new_journal_directory
from drl_ray_tracking.tracking.locks import has_drivers, join_sweep, release, sweep_lock
from tests.waiting import wait_until


@contextmanager
def forked_child() -> Iterator[int]:
    """A child that is forked and lives, as a worker of a process pool does; yields its id."""
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        os.write(told, b"x")
        signal.pause()
        os._exit(0)
    try:
        os.read(ready, 1)
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)


def test_a_part_in_a_sweep_is_taken_back_while_a_forked_child_lives() -> None:
    part = join_sweep("s")
    with forked_child():
        assert has_drivers("s")
        release(part)
        assert not has_drivers("s")


def test_a_journal_is_let_go_while_a_forked_child_lives() -> None:
    writer = JournalWriter(new_journal_directory())
    with forked_child():
        assert driver_is_alive(writer.directory)
        writer.close()
        assert not driver_is_alive(writer.directory)


def test_a_driver_that_is_killed_is_dead_while_a_child_it_forked_lives() -> None:
    directory = new_journal_directory()
    ready, told = os.pipe()
    driver = os.fork()
    if not driver:
        JournalWriter(directory)
        child = os.fork()
        if child:
            os.write(told, str(child).encode())
        signal.pause()
        os._exit(0)
    child = int(os.read(ready, 20))
    try:
        assert driver_is_alive(directory)
        os.kill(driver, signal.SIGKILL)
        os.waitpid(driver, 0)
        wait_until(lambda: not driver_is_alive(directory), timeout_s=10, what="the child has begun")
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(ready)
        os.close(told)


def test_a_child_gives_back_nothing_of_its_parents() -> None:
    part = join_sweep("s")
    child = os.fork()
    if not child:
        release(part)
        os._exit(0)
    os.waitpid(child, 0)
    assert has_drivers("s")
    release(part)
    release(part)  # once more does nothing


def test_a_sweep_can_be_locked_again_while_a_child_forked_inside_lives() -> None:
    with ExitStack() as living:
        with sweep_lock("s"):
            living.enter_context(forked_child())
        with sweep_lock("s"):
            pass  # without the child having to end
