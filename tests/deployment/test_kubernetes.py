"""The manifests: valid against the published schemas, locked down, and true about the service's own names and times."""

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from resnet_service import __version__
from resnet_service.api.app import create_app
from resnet_service.inference.fake import FakeClassifier
from resnet_service.observability.metrics import Metrics
from resnet_service.settings import ENV_PREFIX, Settings
from tests.support.servers import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
FOLDER = DEPLOY / "kubernetes"
KSERVE = FOLDER / "kserve" / "inferenceservice.yaml"
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
# The oldest with a field that is used, and the newest that the schemas are there for.
VERSIONS = ("1.31", "1.37")


def rendered(path: Path) -> dict[str, dict[str, Any]]:
    """Return what ``kubectl apply --kustomize`` would apply, by kind."""
    if shutil.which("kubectl") is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("kubectl is not installed, and renders Kustomize")
    done = subprocess.run(["kubectl", "kustomize", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    kinds = {document["kind"]: document for document in documents}
    assert len(kinds) == len(documents)
    return kinds


@pytest.fixture(scope="module", params=["base", "overlays/production"])
def manifests(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    return rendered(FOLDER / request.param)


@pytest.fixture(scope="module")
def pod(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = manifests["Deployment"]["spec"]["template"]["spec"]
    return found


@pytest.fixture(scope="module", params=["base", "overlays/production", "kserve"])
def any_pod(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the description of the pods in each of the three."""
    if request.param == "kserve":
        found = yaml.safe_load(KSERVE.read_text())["spec"]["predictor"]
    else:
        found = rendered(FOLDER / request.param)["Deployment"]["spec"]["template"]["spec"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_they_are_valid_to_the_last_field(manifests: dict[str, dict[str, Any]], version: str) -> None:
    wanted = {"Deployment", "Service", "ServiceAccount", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert manifests.keys() >= wanted | {"NetworkPolicy"}
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_would_notice_a_wrong_field(manifests: dict[str, dict[str, Any]]) -> None:
    wrong = {**manifests["Deployment"], "spec": {**manifests["Deployment"]["spec"], "replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def check_model(kind: str, value: Any, where: str) -> None:
    """Compare a value with the class that KServe's SDK, or Kubernetes' client, generates from the published schema.

    Raises:
        ValueError: A field that the class does not have, or a value of another type.

    """
    if value is None:
        raise ValueError(f"{where} is empty")
    if found := re.fullmatch(r"[lL]ist\[(.*)\]", kind):  # codespell:ignore ist
        for number, item in enumerate(value):
            check_model(found[1], item, f"{where}[{number}]")
    elif found := re.fullmatch(r"[dD]ict[\[(]\w+, (.*)[\])]", kind):
        for key, item in value.items():
            check_model(found[1], item, f"{where}.{key}")
    elif plain := {"str": str, "int": int, "bool": bool, "float": float, "object": object}.get(kind):
        if not isinstance(value, plain) or (kind == "int" and isinstance(value, bool)):
            raise ValueError(f"{where} is {value!r}, not {kind}")
    else:
        models = [importlib.import_module(name) for name in ("kserve.models", "kubernetes.client.models")]
        model = next(getattr(module, kind) for module in models if hasattr(module, kind))
        fields = {json_name: model.openapi_types[name] for name, json_name in model.attribute_map.items()}
        for key, item in value.items():
            if key not in fields:
                raise ValueError(f"{where} has no field {key}")
            check_model(fields[key], item, f"{where}.{key}")


def test_the_inference_service_is_what_kserve_knows() -> None:
    pytest.importorskip("kserve", reason="KServe's SDK is not installed")
    service = yaml.safe_load(KSERVE.read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    check_model("V1beta1InferenceService", service, "InferenceService")
    service["spec"]["predictor"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(ValueError, match="has no field readOnlyRootFileSystem"):
        check_model("V1beta1InferenceService", service, "InferenceService")


def test_pods_are_restricted(any_pod: dict[str, Any]) -> None:
    """As Kubernetes' pod security standard `restricted` has it, and beyond."""
    assert any_pod["automountServiceAccountToken"] is False
    assert any_pod["securityContext"]["runAsNonRoot"] is True
    assert any_pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & any_pod.keys()
    (container,) = any_pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    user = re.search(r"^USER (\d+):(\d+)$", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert user is not None
    assert (any_pod["securityContext"]["runAsUser"], any_pod["securityContext"]["runAsGroup"]) == (
        int(user[1]),
        int(user[2]),
    )
    resources = container["resources"]
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"], "what the service counts its workers by"
    assert resources.keys() == {"requests", "limits"}


def settings_of(container: dict[str, Any]) -> Settings:
    """Return the settings that a container's variables make, having checked that each exists."""
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    for name in variables:
        assert name.removeprefix(ENV_PREFIX).lower() in Settings.model_fields, name
    return Settings(**{name.removeprefix(ENV_PREFIX).lower(): value for name, value in variables.items()})


def longest_end(settings: Settings) -> float:
    """Return the seconds from SIGTERM that an accepted request can need: to arrive, to be answered, to be read."""
    return settings.drain_delay + settings.body_seconds + settings.deadline + settings.send_seconds


def test_a_pod_has_the_time_that_its_shutdown_needs(any_pod: dict[str, Any]) -> None:
    settings = settings_of(any_pod["containers"][0])
    assert settings.drain_delay >= 5, "endpoints take seconds to be forgotten"
    assert any_pod["terminationGracePeriodSeconds"] > longest_end(settings)
    assert "lifecycle" not in any_pod["containers"][0], "the drain delay is what a preStop hook would be for"


def test_probes_ask_routes_that_exist(any_pod: dict[str, Any]) -> None:
    (container,) = any_pod["containers"]
    routes = set(create_app(Settings(), FakeClassifier()).openapi()["paths"])
    names = {port["name"]: port["containerPort"] for port in container["ports"]}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[kind]["httpGet"]
        assert names[asked["port"]] == Settings.model_fields["port"].default
        assert asked["path"] in routes
        assert asked["path"].endswith("live" if kind == "livenessProbe" else "ready")


def test_selectors_select_the_pods(manifests: dict[str, dict[str, Any]], pod: dict[str, Any]) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifests["Service"]["spec"]["selector"],
        *(
            manifests[kind]["spec"][name]["matchLabels"]
            for kind, name in (
                ("Deployment", "selector"),
                ("PodDisruptionBudget", "selector"),
                ("NetworkPolicy", "podSelector"),
            )
        ),
        *(spread["labelSelector"]["matchLabels"] for spread in pod["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    assert {spread["topologyKey"] for spread in pod["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    assert pod["serviceAccountName"] == manifests["ServiceAccount"]["metadata"]["name"]


def test_nothing_goes_out_and_only_the_port_comes_in(manifests: dict[str, dict[str, Any]]) -> None:
    policy = manifests["NetworkPolicy"]["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []
    for rule in policy["ingress"]:
        assert rule["from"], "an empty list is everybody"
        assert rule["ports"] == [{"port": "http"}]


def test_the_autoscaler_goes_by_a_metric_that_exists(manifests: dict[str, dict[str, Any]]) -> None:
    autoscaler = manifests["HorizontalPodAutoscaler"]["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    assert "replicas" not in manifests["Deployment"]["spec"], "or each apply would undo what the autoscaler did"
    assert autoscaler["minReplicas"] > manifests["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    (metric,) = autoscaler["metrics"]
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    series = re.match(r"\w+", rule["seriesQuery"])
    assert series is not None
    assert series[0] in {f"{row.name}_sum" for row in Metrics().rows if row.kind == "histogram"}


def test_the_images_are_those_of_this_version() -> None:
    overlay = rendered(FOLDER / "overlays" / "production")["Deployment"]["spec"]["template"]["spec"]
    for described in (overlay, yaml.safe_load(KSERVE.read_text())["spec"]["predictor"]):
        assert described["containers"][0]["image"].endswith(f"/resnet-service:{__version__}")


# Compose.


def test_compose_runs_the_service_locked_down_and_long_enough() -> None:
    service = COMPOSE["services"]["resnet-service"]
    assert service["read_only"] is True
    assert service["cpus"] == 2
    for each in COMPOSE["services"].values():
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in each
    variables = [{"name": name, "value": value} for name, value in service["environment"].items()]
    grace = int(re.fullmatch(r"(\d+)s", service["stop_grace_period"])[1])  # type: ignore[index]
    assert grace > longest_end(settings_of({"env": variables}))


def test_compose_publishes_on_loopback_unless_there_are_keys() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    text = (REPOSITORY / "docker-compose.public.yml").read_text()
    # With the tag, Compose replaces the list; without it, it would publish both ports.
    assert "ports: !override" in text
    public = yaml.safe_load(text.replace("!override", ""))["services"]
    assert public.keys() == {"resnet-service"}
    # With `:?`, Compose refuses to start while the variable is empty.
    assert public["resnet-service"]["environment"][f"{ENV_PREFIX}API_KEYS"].startswith(f"${{{ENV_PREFIX}API_KEYS:?")


def test_compose_mounts_files_that_are_there() -> None:
    for service in COMPOSE["services"].values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("./") and source != "./deploy/grafana/resnet-service.json":
                assert (REPOSITORY / source).exists(), source
            assert source.startswith("./") or source in COMPOSE["volumes"]


def test_prometheus_and_grafana_find_each_other_and_the_dashboard() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    for name in prometheus["rule_files"]:
        assert yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]
    (scrape,) = prometheus["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["resnet-service:8080"]}]
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert {"prometheus", "resnet-service"} <= COMPOSE["services"].keys()
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "resnet-service.yaml").read_text())["providers"]
    targets = [mount.split(":")[1] for mount in COMPOSE["services"]["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/resnet-service.json" in targets
    assert COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in targets
