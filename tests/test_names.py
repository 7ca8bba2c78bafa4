"""Names are legal for MLflow and can be had back."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drl_ray_tracking import names

any_text = st.text(max_size=60) | st.text(alphabet="_x25f./ @[]", max_size=20)


@given(any_text)
@example("_x_")
@example("_x2@_")
@example("..a/./b")
@example(" padded ")
@example("a//b/")
@example("/absolute")
@example("ends in newline\n")
@example("")
def test_a_legal_name_is_reversible(name: str) -> None:
    legal = names.legal_metric_name(name)
    assert len(legal) == 250 or names.original_metric_name(legal) == name


@settings(deadline=None)  # the first call imports mlflow
@given(any_text | st.text(min_size=230, max_size=300))
@example("..a")
@example(".")
@example("a/..")
@example("\ud800")
def test_mlflow_accepts_every_legal_name(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    legal = names.legal_metric_name(name)
    _validate_metric_name(legal)
    _validate_param_name(legal)
    assert len(legal) <= 250


@given(st.lists(any_text, unique=True, max_size=8))
def test_two_names_never_become_one(given_names: list[str]) -> None:
    assert len({names.legal_metric_name(name) for name in given_names}) == len(given_names)


@given(st.text(max_size=60) | st.text(alphabet="_x25f./ #?%\\\n:", max_size=20) | st.text(min_size=200, max_size=400))
@example("../../x")
@example("/etc/passwd")
@example("a/./b//c")
@example("\udcff")
@example("漢" * 100)
@example("data_x.csv")
@example("a_x23_b/_x_")
@example("a_x#")
def test_an_artifacts_path_stays_in_its_place_and_can_be_had_back(path: str) -> None:
    legal = names.legal_artifact_path(path)
    parts = legal.split("/") if legal else []
    assert ".." not in parts and "." not in parts and "" not in parts
    assert all(len(part.encode()) <= 255 and part == part.strip(" ") for part in parts)
    assert not set(legal) & set("#?%:\\\n\0")
    given_parts = [part for part in path.split("/") if part not in ("", ".")]
    for part, own in zip(parts, given_parts, strict=True):
        assert names.original_metric_name(part) == own or len(part.encode()) > 240


def test_plain_names_of_files_stay_as_they_are() -> None:
    for path in ("plots/data_x.csv", "ünï 漢字.txt", "a..b/-c (1).png", "x_x1.tar.gz"):
        assert names.legal_artifact_path(path) == path


@given(st.lists(st.text(alphabet="ab_x23/.#", min_size=1, max_size=12), unique=True, max_size=8))
@example(["a#b", "a_x23_b"])
def test_two_artifacts_never_become_one(paths: list[str]) -> None:
    wanted = {"/".join(part for part in path.split("/") if part not in ("", ".")) for path in paths}
    assert len({names.legal_artifact_path(path) for path in paths}) == len(wanted)


@pytest.mark.parametrize("folder", ["../x", "/x", "a/../../b", "..", "a/.."])
def test_a_folder_that_leads_out_is_told(folder: str) -> None:
    assert names.leads_out(folder)
    assert not names.leads_out("a..b/c") and not names.leads_out("")


@pytest.mark.parametrize("name", ["train/episode/return_mean", "eval/trading/by_symbol/GOOGL/sharpe", "Größe", "a b"])
def test_a_readable_name_stays_as_it_is(name: str) -> None:
    assert names.legal_metric_name(name) == name


def test_long_names_are_cut_apart() -> None:
    one, two = (names.legal_metric_name("a" * 300 + end) for end in "bc")
    assert len(one) == len(two) == 250
    assert one != two


@pytest.mark.parametrize(
    ("path", "published"),
    [
        ("evaluation/env_runners/trading/sharpe", "eval/trading/sharpe"),
        ("env_runners/episode/return_mean", "train/episode/return_mean"),
        ("env_runners/episode_return_mean", "train/rllib/episode_return_mean"),
        ("learners/default_policy/vf_loss", "learner/default_policy/value_loss"),
        ("learners/default_policy/policy_loss", "learner/default_policy/policy_loss"),
        ("training_iteration", "progress/iteration"),
        ("evaluation/weights_step", "eval/weights_step"),
    ],
)
def test_either_name_of_a_metric_leads_to_the_other(path: str, published: str) -> None:
    assert names.published_name(path) == published
    assert names.tune_path(published) == path
    assert names.tune_path(path) == path
    assert names.mlflow_name(path) == names.mlflow_name(published) == published


def test_what_nobody_reads_has_no_published_name() -> None:
    assert names.published_name("timers/training_step") is None
    assert names.published_name("learners/default_policy/num_module_steps_trained") is None


def trees(leaves: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(st.text("abc", min_size=1), leaves, min_size=1)


@given(trees(st.recursive(st.integers(), trees, max_leaves=8)))
def test_nest_undoes_flatten(tree: dict[str, object]) -> None:
    rebuilt: dict[str, object] = {}
    for path, leaf in names.flatten(tree):
        names.nest(rebuilt, path, leaf)
    assert rebuilt == tree


@pytest.mark.parametrize(("value", "expected"), [(True, 1.0), (3, 3.0), (2.5, 2.5)])
def test_finite_takes_numbers(value: object, expected: float) -> None:
    assert names.finite(value) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, "1.0", None, [1.0], 10**400])
def test_finite_takes_nothing_else(value: object) -> None:
    assert names.finite(value) is None
