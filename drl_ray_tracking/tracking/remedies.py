"""What to do when a store does not answer or does not take what it is given."""

from __future__ import annotations

import re


def remedy(error: Exception | str, uri: str) -> str:
    """Returns the advice for what a store said, without a full stop."""
    said = str(error)
    if re.search(r"\b403\b", said) or "Invalid Host header" in said:
        return (
            "the server refuses this host name or user: start it with `--allowed-hosts` naming the host of "
            f"{uri}, or ask for the permission"
        )
    if re.search(r"\b401\b", said):
        return (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment "
            "that the driver is started in, or have DRL_TRACK_TOKEN_FILE name a file with the token"
        )
    if "certificate verify failed" in said.lower():
        return "give the file of its certificate authority in MLFLOW_TRACKING_SERVER_CERT_PATH"
    if uri.startswith("http"):
        return "start the server, correct the address, or train with `offline: true` under tracking and deliver later"
    return "see what the database says; `mlflow db upgrade` if it was made by an older MLflow"
