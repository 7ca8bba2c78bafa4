"""No secret is written down: by the name of its key, by its value, by its place in a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from drl_ray_tracking.trials.redaction import REDACTED, known_secrets, looks_secret, redact


@pytest.mark.parametrize(
    "name",
    ["password", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "api_key", "apiKey", "OPENAI_API_KEY",
     "db.password", "auth", "client-secret", "accessToken", "credentials", "dbpasswd"],
)  # fmt: skip
def test_names_of_credentials(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["lr", "author", "tokenizer", "max_tokens", "monkey", "keyboard", "passage", "gamma"])
def test_names_of_other_things(name: str) -> None:
    assert not looks_secret(name)


def test_by_key_at_any_depth() -> None:
    config = {"env_config": {"api_key": "abc", "symbols": ["A"]}, "list": [{"password": {"deep": "x"}}]}
    assert redact(config, ()) == {
        "env_config": {"api_key": REDACTED, "symbols": ["A"]},
        "list": [{"password": REDACTED}],
    }


def test_numbers_under_such_a_name_stay() -> None:
    assert redact({"token": 5, "auth": None, "secret": True}, ()) == {"token": 5, "auth": None, "secret": True}


def test_by_value_wherever_it_stands() -> None:
    secrets = known_secrets({"MY_TOKEN": "s3cr3t-value", "HOME": "/root", "SHORT_TOKEN": "abc"})
    assert secrets == ("s3cr3t-value",)
    assert redact(["x s3cr3t-value y", {"note": "s3cr3t-value"}], secrets) == [f"x {REDACTED} y", {"note": REDACTED}]


def test_the_longer_of_two_secrets_goes_first() -> None:
    secrets = known_secrets({"A_TOKEN": "password1", "B_TOKEN": "password1-and-more"})
    assert redact("password1-and-more", secrets) == REDACTED


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:hunter22@host/db",
        '+api_key = "hunter22"',
        "+    'password': 'hunter22',",
        'DB_PASSWORD="hunter22"',
        "connect(token='hunter22')",
    ],
)
def test_by_its_place_in_a_text(text: str) -> None:
    redacted = redact(text, ())
    assert "hunter22" not in redacted
    assert REDACTED in redacted


@pytest.mark.parametrize("text", ["http://host:5000/path", "see user:group", "lr = '3e-4'", "a@b.c"])
def test_harmless_texts_stay(text: str) -> None:
    assert redact(text, ()) == text


def test_a_secret_may_begin_like_a_path_and_a_path_that_is_there_is_none(tmp_path: Path) -> None:
    there = tmp_path / "agent.socket"
    there.touch()
    found = known_secrets(
        {"AWS_SECRET_ACCESS_KEY": "/9k3jd8fjq/pqoeiruty", "AUTH": str(there), "A_TOKEN": "/" + "x" * 5000}
    )
    assert found == ("/" + "x" * 5000, "/9k3jd8fjq/pqoeiruty")
    assert redact(f"key /9k3jd8fjq/pqoeiruty in {there}", found[1:]) == f"key {REDACTED} in {there}"
