"""Parameters are what trials are compared by, under names MLflow takes."""

from __future__ import annotations

from drl_ray_tracking.trials.parameters import LONGEST_PARAM, identifying_parameters


def test_the_search_space_and_what_differs_from_the_defaults() -> None:
    defaults = {"lr": 5e-5, "gamma": 0.99, "model": {"hiddens": [256]}}
    config = {"lr": 1e-3, "gamma": 0.99, "model": {"hiddens": [64]}, "seed": 1}
    searched = {"gamma": 0.99}
    assert identifying_parameters(config, defaults, searched) == {
        "lr": "0.001",
        "model/hiddens": "[64]",
        "seed": "1",
        "gamma": "0.99",
    }


def test_without_defaults_everything_identifies() -> None:
    assert identifying_parameters({"a": 1, "b": {"c": "x"}}, {}, {}) == {"a": "1", "b/c": "x"}


def test_machinery_is_left_out() -> None:
    config = {"callbacks": "x", "_private": 1, "model": {"_inner": 1}, "env_config": {"segments": [1], "window": 5}}
    assert identifying_parameters(config, {}, {}) == {"env_config/window": "5"}


def test_long_values_are_cut_and_told_apart() -> None:
    one, two = (identifying_parameters({"a": "x" * 5000 + end}, {}, {})["a"] for end in "12")
    assert len(one) <= LONGEST_PARAM
    assert one != two


def test_names_are_legal() -> None:
    assert identifying_parameters({"lr@1": 1}, {}, {}) == {"lr_x40_1": "1"}


def test_pbt_changes_what_the_search_space_drew() -> None:
    assert identifying_parameters({"lr": 0.4, "gamma": 0.9}, {"lr": 0.1, "gamma": 0.9}, {"lr": 0.1}) == {"lr": "0.4"}
    assert identifying_parameters({}, {}, {"drawn": 1}) == {"drawn": "1"}


def test_globs_choose_parameters() -> None:
    defaults = {"lr": 1, "gamma": 0.9, "model": {"hiddens": 8, "activation": "relu"}}
    config = {**defaults, "lr": 2, "callbacks": "x"}
    assert identifying_parameters(config, defaults, {"gamma": 0.9}, exclude=("gam*",)) == {"lr": "2"}
    assert identifying_parameters(config, defaults, {"lr": 2}, include=("model/*",)) == {
        "model/hiddens": "8",
        "model/activation": "relu",
    }
    assert set(identifying_parameters(config, defaults, {}, include=("*",), exclude=("model/*",))) == {
        "lr",
        "gamma",
        "callbacks",
    }
