"""The tag of attempts: whole JSON however many there are, and readers see the points they would with all of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drl_ray_tracking import names
from drl_ray_tracking.analysis.histories import Attempt, counted_points, parse_attempts
from drl_ray_tracking.tracking import growing_tags
from drl_ray_tracking.tracking.growing_tags import merged_attempts

MINUTE_MS = 60_000
START_MS = 1_750_000_000_000
TAG_LIMIT = 8_000


def grown(resumed: list[int]) -> str:
    """The tag after so many attempts, each a minute after the one before."""
    tags: dict[str, str] = {}
    for number, step in enumerate(resumed):
        tags = merged_attempts(tags, {START_MS + number * MINUTE_MS: step})
    return tags[names.TAG_ATTEMPTS]


def all_of(resumed: list[int]) -> list[Attempt]:
    return [Attempt(number + 1, START_MS + number * MINUTE_MS, step) for number, step in enumerate(resumed)]


def test_a_few_attempts_are_all_listed() -> None:
    assert json.loads(grown([0, 5, 3])) == [
        [1, START_MS, 0], [2, START_MS + MINUTE_MS, 5], [3, START_MS + 2 * MINUTE_MS, 3],
    ]  # fmt: skip


def test_a_thousand_attempts_fit_and_the_newest_are_there() -> None:
    resumed = [4_000 * number for number in range(1_000)]
    tag = grown(resumed)
    assert len(tag) < TAG_LIMIT
    attempts = parse_attempts(tag)
    assert attempts[0] == Attempt(1, START_MS, 0)
    assert attempts[-200:] == tuple(all_of(resumed)[-200:]), "by their own numbers"
    assert attempts[1].resumed_step == 4_000, "nothing before it counts beyond"


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=2, max_size=25))
def test_attempts_that_a_later_one_supersedes_change_nothing_for_readers(resumed: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing_tags, "_LIMIT", 0)
        patch.setattr(growing_tags, "_FEWEST", 100)
        attempts = parse_attempts(grown(resumed))
    every = np.arange(len(resumed) * 40)
    steps, times_ms = every % 40, START_MS + (every // 40) * MINUTE_MS + 1
    counted = counted_points(steps, times_ms, all_of(resumed))
    assert np.array_equal(counted_points(steps, times_ms, attempts), counted)


def test_dropped_attempts_take_no_point_away_that_counts() -> None:
    resumed = [4_000 * number for number in range(600)]
    attempts = parse_attempts(grown(resumed))
    assert len(attempts) < len(resumed)
    every = np.arange(len(resumed))
    steps, times_ms = every * 4_000 + 4_000, START_MS + every * MINUTE_MS + 1  # what each attempt reported
    assert counted_points(steps, times_ms, all_of(resumed)).all()
    assert counted_points(steps, times_ms, attempts).all()
    far_back = merged_attempts({names.TAG_ATTEMPTS: grown(resumed)}, {START_MS + 600 * MINUTE_MS: 8_000})
    after = parse_attempts(far_back[names.TAG_ATTEMPTS])
    assert counted_points(steps, times_ms, after).sum() == 2, "what resumed far back supersedes all the same"


def test_a_tag_that_was_cut_keeps_what_is_whole_in_it() -> None:
    tag = json.dumps([[1, START_MS, 0], [2, START_MS + MINUTE_MS, 5]])
    again = merged_attempts({names.TAG_ATTEMPTS: f"{tag[:-1]}, [3, 17500"}, {START_MS + 2 * MINUTE_MS: 7})
    assert [one.resumed_step for one in parse_attempts(again[names.TAG_ATTEMPTS])] == [0, 5, 7]


@pytest.mark.parametrize("nonsense", ["mine", "{}!", "7", "[[1, 2]]"])
def test_a_tag_that_is_no_list_of_attempts_stays_for_a_person_to_mend(nonsense: str) -> None:
    assert merged_attempts({names.TAG_ATTEMPTS: nonsense}, {START_MS: 0}) == {}


def test_an_attempt_that_is_said_again_is_one() -> None:
    tag = {names.TAG_ATTEMPTS: grown([0, 5, 3])}
    assert merged_attempts(tag, {START_MS + MINUTE_MS: 5}) == tag
    assert merged_attempts({}, {}) == {}
