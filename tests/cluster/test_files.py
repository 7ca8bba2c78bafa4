"""The cluster files: each valid against its schema, pinned to what this repository is, and true to the code.

Schemas are those of others, as installed: Ray's for the launcher, Kubernetes' and Compose's. KubeRay's own is not in
any package: Ray's reading of a RayCluster stands in for it, and `$DRL_RAYJOB_CRD` (the file `ray.io_rayjobs.yaml` of a
KubeRay release) checks the whole of it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.resources
import json
import os
import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
LAUNCHERS = ("local.yaml", "aws.yaml")
KUBERNETES = "1.33"
SECRET = re.compile(r"password|secret|token|access_key|key_id", re.IGNORECASE)


def read(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text()))


def sweep_job() -> dict[str, Any]:
    (job,) = [document for document in documents() if document["kind"] == "RayJob"]
    return job


def mlflow_commands() -> list[list[str]]:
    (server,) = [item for item in documents() if item["metadata"]["name"] == "drl-mlflow" and item["kind"] != "Service"]
    return [
        read("compose.yaml")["services"]["mlflow"]["command"],
        server["spec"]["template"]["spec"]["containers"][0]["command"],
    ]


# --- the launcher ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_file_passes_rays_own_schema_and_validation(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's autoscaler imports
        import ray.autoscaler
        from ray.autoscaler._private.util import prepare_config, validate_config
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    prepared = prepare_config(read(name))
    jsonschema.validate(prepared, schema)
    validate_config(prepared)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**prepared, "file_mount": {}}, schema)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_what_a_launcher_mounts_and_runs_is_there(name: str) -> None:
    from drl_ray_tracking.training.config import load_config

    config = read(name)
    here = {remote: local for remote, local in config["file_mounts"].items() if local.startswith(".")}
    ((remote, local),) = here.items()
    assert (CLUSTER.parent / local).is_dir()
    submitted = re.search(r"ray submit (\S+) (\S+) (\S+)$", (CLUSTER / name).read_text(), re.MULTILINE)
    assert submitted is not None
    launcher, script, argument = (part.strip("'") for part in submitted.groups())
    assert (CLUSTER.parent / launcher).samefile(CLUSTER / name)
    assert (CLUSTER.parent / script).is_file()
    assert argument.startswith(f"{remote}/")
    assert load_config(CLUSTER.parent / local / argument.removeprefix(f"{remote}/")).experiment


@pytest.mark.parametrize("name", ["local.yaml", "aws.yaml", "kuberay.yaml"])
def test_every_node_gets_this_version_of_the_package(name: str) -> None:
    project = tomllib.loads((CLUSTER.parent / "pyproject.toml").read_text())["project"]
    pins = re.findall(r"(drl-ray-tracking)\[(\w+)\]==([\w.]+)", (CLUSTER / name).read_text())
    assert pins, "the package is pinned"
    for package, extra, version in pins:
        assert (package, version) == (project["name"], project["version"])
        assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("name", ["aws.yaml", "kuberay.yaml", "compose.yaml"])
def test_images_pin_the_versions_that_are_tested(name: str) -> None:
    text = (CLUSTER / name).read_text()
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (CLUSTER.parent / "constraints.txt").read_text(), re.MULTILINE))
    found = re.findall(r"rayproject/(ray):(\d[\d.]*)", text)
    found += re.findall(r"drl-(mlflow):(\d+\.[\d.]+)", text)
    found += re.findall(r"(mlflow)\[auth\]==([\d.]+)", text)
    found += re.findall(r"\b(psycopg2-binary|boto3)==([\d.]+)", text)
    assert found
    assert [pinned[package] for package, _ in found] == [version for _, version in found]


# --- jobs --------------------------------------------------------------------------------------------


def test_the_runtime_environment_is_one_ray_accepts_and_holds_no_secret() -> None:
    from ray.runtime_env import RuntimeEnv

    values = read("runtime_env.yaml")
    RuntimeEnv(**values)
    assert set(values["env_vars"]) == {"MLFLOW_TRACKING_URI"}
    # What the job needs of the working directory is not left out of it.
    assert not {"drl_ray_tracking", "configs", "cluster"} & set(values["excludes"])


def test_the_entry_calls_the_command_line_that_exists() -> None:
    from drl_ray_tracking import cli

    tree = ast.parse((CLUSTER / "submit_entry.py").read_text())
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert imported == ["main"]
    assert callable(cli.main)
    assert "train" in commands()


def commands() -> set[str]:
    from drl_ray_tracking import cli

    return {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}


# --- Kubernetes --------------------------------------------------------------------------------------


def test_every_kubernetes_object_fits_its_schema() -> None:
    import kubernetes_validate

    kinds = set()
    for document in documents():
        kinds.add(document["kind"])
        if document["kind"] != "RayJob":
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
    assert {"RayJob", "Deployment", "StatefulSet", "Service", "ConfigMap", "PersistentVolumeClaim"} == kinds
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**documents()[1], "specs": {}}, KUBERNETES, strict=True)


def test_ray_reads_the_jobs_cluster_and_its_pods_are_pods() -> None:
    import kubernetes_validate
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr as read_cluster,
    )

    spec = sweep_job()["spec"]["rayClusterSpec"]
    # Raises where Ray's own schema does not allow what it makes of it.
    read = read_cluster({"metadata": {"name": "drl", "namespace": "default"}, "spec": spec})
    assert read["available_node_types"]["headgroup"]["resources"]["CPU"] == 0, "no trial waits beside the driver"
    assert read["available_node_types"]["workers"]["resources"]["CPU"] >= 1
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_job_fits_kuberays_own_definition() -> None:
    given = os.environ.get("DRL_RAYJOB_CRD")
    if not given:
        pytest.skip("KubeRay's definition is in no package: DRL_RAYJOB_CRD names a release's ray.io_rayjobs.yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load(Path(given).read_text(), Loader=loader)
    (schema,) = [
        version["schema"]["openAPIV3Schema"]
        for version in definition["spec"]["versions"]
        if f"{definition['spec']['group']}/{version['name']}" == sweep_job()["apiVersion"]
    ]
    jsonschema.validate(sweep_job(), closed(schema))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**sweep_job(), "spec": {**sweep_job()["spec"], "entry": "x"}}, closed(schema))


def closed(schema: Any) -> Any:
    """Kubernetes drops what a definition does not name; here it is a mistake. Its integers may be quantities."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if made.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and made["properties"]:
        made.setdefault("additionalProperties", False)
    return made


def test_the_jobs_entrypoint_and_its_configuration_exist() -> None:
    from drl_ray_tracking.training.config import load_config

    spec = sweep_job()["spec"]
    program, command, argument = spec["entrypoint"].split()
    scripts = {script.name: script for script in importlib.metadata.entry_points(group="console_scripts")}
    assert callable(scripts[program].load())
    assert command in commands()
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in head["volumeMounts"]}
    assert load_config(CLUSTER.parent / "configs" / argument.removeprefix(f"{mounts['configs']}/")).experiment
    for worker in spec["rayClusterSpec"]["workerGroupSpecs"]:
        container = worker["template"]["spec"]["containers"][0]
        assert "env" not in container, "no worker knows of MLflow"
        assert mounts["results"] in [mount["mountPath"] for mount in container["volumeMounts"]], "storage is shared"


def test_what_kubernetes_objects_name_of_each_other_is_there() -> None:
    by_kind: dict[str, set[str]] = {}
    for document in documents():
        by_kind.setdefault(document["kind"], set()).add(document["metadata"]["name"])
    made_by_hand = {"ConfigMap": {"drl-configs"}, "Secret": {"drl-secrets"}}
    keys = set()
    for path, value in leaves(documents()):
        if path[-2:] == ("persistentVolumeClaim", "claimName"):
            assert value in by_kind["PersistentVolumeClaim"]
        elif path[-2:] == ("configMap", "name"):
            assert value in by_kind["ConfigMap"] | made_by_hand["ConfigMap"]
        elif path[-2:] == ("secretKeyRef", "key"):
            keys.add(value)
    told = re.search(r"create secret generic drl-secrets (.*)$", (CLUSTER / "kuberay.yaml").read_text(), re.MULTILINE)
    assert told is not None
    assert set(re.findall(r"--from-literal=(\w+)=", told[1])) == keys


# --- the servers -------------------------------------------------------------------------------------


def test_the_compose_file_fits_the_compose_specification() -> None:
    vendor = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendor.read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    validator.validate(read("compose.yaml"))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**read("compose.yaml"), "service": {}})


@pytest.mark.parametrize("command", mlflow_commands(), ids=["compose", "kubernetes"])
def test_the_mlflow_command_is_one_mlflow_takes(command: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own type hints
        from mlflow.cli import cli

    program, name, *options = command
    assert program == "mlflow"
    server = cli.commands[name]
    with server.make_context(name, [re.sub(r"\$\{[^}]*\}", "x", option) for option in options]) as context:
        assert context.params["app_name"] == "basic-auth"
        assert "localhost:*" in context.params["allowed_hosts"].split(",")
        assert "*" not in context.params["allowed_hosts"].split(",")


@pytest.mark.parametrize("name", ["aws.yaml", "local.yaml", "compose.yaml", "kuberay.yaml", "runtime_env.yaml"])
def test_no_file_holds_a_secret(name: str) -> None:
    for path, value in leaves(list(yaml.safe_load_all((CLUSTER / name).read_text()))):
        if SECRET.search(str(path[-1])) and isinstance(value, str) and path[-1] != "secretKeyRef":
            assert value.startswith(("${", "~/")), f"{path}: {value}"
        assert "://" not in str(value) or "@" not in re.sub(r"://mlflow@", "://", str(value)), "a password in a URL"


@pytest.mark.parametrize("given", ["compose.yaml", "kuberay.yaml"])
def test_what_is_interpolated_is_required_and_said(given: str) -> None:
    text = (CLUSTER / given).read_text()
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        assert rest.startswith(":?"), f"{name} may be empty"
        assert len(re.findall(rf"{name}=", text.partition("services:")[0])) == 1, f"{name} is not said at the top"


def leaves(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if isinstance(node, dict):
        return [leaf for key, value in node.items() for leaf in leaves(value, (*path, key))]
    if isinstance(node, list):
        return [leaf for key, value in enumerate(node) for leaf in leaves(value, (*path, key))]
    return [(path, node)]
