"""The manifests in resources/kubernetes: valid, and in agreement with the code, the images and compose.yaml.

No cluster runs here. What Kubernetes itself defines is checked by its own schemas (the package kubernetes-validate);
what KServe, KubeRay and the Prometheus Operator define, by the fields that are listed in FIELDS.
"""

import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from starlette.testclient import TestClient

from libraries.base.command import flags_of, parse
from libraries.base.layout import Layout
from libraries.service import server
from libraries.service.gate import Access
from libraries.service.service import Service
from libraries.service.trusted_headers import allowed_hosts
from PARAMETERS import Parameters
from tests.conftest import ROOT, SCRIPTS, STEPS
from tests.service.conftest import KEY, NewClient

FOLDER = ROOT / "resources" / "kubernetes"
VERSIONS = ("1.34", "1.37")  # of Kubernetes
POD_IP = "10.1.2.3"

Manifest = dict[str, Any]
OBJECT, POD = object(), object()  # any mapping; a pod's template

FIELDS: dict[str, Any] = {
    # github.com/prometheus-operator/prometheus-operator, v0.93.1: Documentation/api-reference/api.md
    "monitoring.coreos.com/v1 ServiceMonitor": {
        "selector": OBJECT,
        "endpoints": [
            {"port": str, "path": str, "interval": str, "authorization": {"credentials": {"name": str, "key": str}}}
        ],
    },
    # github.com/kserve/kserve, v0.20.0: pkg/apis/serving/v1alpha1/servingruntime_types.go
    "serving.kserve.io/v1alpha1 ServingRuntime": {
        "supportedModelFormats": [{"name": str, "version": str}],
        "protocolVersions": [str],
        "containers": [OBJECT],
        "volumes": [OBJECT],
    },
    # the same, v1beta1: predictor.go, component.go, predictor_model.go; beside these, the fields of a pod
    "serving.kserve.io/v1beta1 InferenceService": {
        "predictor": {
            "minReplicas": int,
            "maxReplicas": int,
            "scaleMetric": str,
            "scaleTarget": int,
            "automountServiceAccountToken": bool,
            "enableServiceLinks": bool,
            "terminationGracePeriodSeconds": int,
            "securityContext": OBJECT,
            "model": {"modelFormat": {"name": str}, "runtime": str, "protocolVersion": str, "storageUri": str},
        }
    },
    # github.com/ray-project/kuberay, v1.7.0: docs/reference/api.md
    "ray.io/v1 RayJob": {
        "entrypoint": str,
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": {
            "rayVersion": str,
            "authOptions": {"mode": str},
            "headGroupSpec": {"rayStartParams": OBJECT, "template": POD},
            "workerGroupSpecs": [
                {
                    "groupName": str,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "rayStartParams": OBJECT,
                    "template": POD,
                }
            ],
        },
        "submitterPodTemplate": POD,
    },
}


def manifests(name: str = "*.yaml") -> list[Manifest]:
    return [m for path in sorted(FOLDER.glob(name)) for m in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def found(kind: str, name: str = "*.yaml") -> Manifest:
    (manifest,) = (m for m in manifests(name) if m["kind"] == kind)
    return manifest


def kind_of(manifest: Manifest) -> str:
    return f"{manifest['apiVersion']} {manifest['kind']}"


def kserve_pod() -> Manifest:
    """The pod that KServe makes of the runtime and the predictor."""
    runtime, predictor = found("ServingRuntime")["spec"], found("InferenceService")["spec"]["predictor"]
    ours = ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "model")
    own = {name: value for name, value in predictor.items() if name not in ours}
    return {**own, "containers": runtime["containers"], "volumes": runtime["volumes"]}


def templates(value: Any, shape: Any) -> Iterator[Manifest]:
    """What stands where the shape has a POD."""
    if shape is POD:
        yield value
    elif isinstance(shape, dict):
        for name in shape.keys() & value.keys():
            yield from templates(value[name], shape[name])
    elif isinstance(shape, list):
        for item in value:
            yield from templates(item, shape[0])


def pods() -> dict[str, Manifest]:
    """The specifications of all pods, by what makes them."""
    found_pods = {"Pod": found("Pod")["spec"], "Deployment": found("Deployment")["spec"]["template"]["spec"]}
    job = found("RayJob")
    of_ray = templates(job["spec"], FIELDS[kind_of(job)])
    return {**found_pods, "KServe": kserve_pod(), **{f"RayJob {i}": pod["spec"] for i, pod in enumerate(of_ray)}}


PODS = pods()
each_pod = pytest.mark.parametrize("pod", PODS.values(), ids=PODS.keys())


def service() -> Manifest:
    """The container of the Deployment."""
    (container,) = PODS["Deployment"]["containers"]
    return container


def environment(container: Manifest) -> dict[str, str]:
    """What Kubernetes makes of a container's variables."""
    return {e["name"]: e["value"].replace("$(POD_IP)", POD_IP) for e in container.get("env", ()) if "value" in e}


def dockerfile(name: str, path: Path = ROOT / "Dockerfile") -> list[str]:
    """The arguments of an instruction."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{name} +(.+)$", text, re.MULTILINE)


def env_of(path: Path) -> dict[str, str]:
    """What an image sets."""
    return dict(pair.split("=", 1) for line in dockerfile("ENV", path) for pair in shlex.split(line))


# Schemas


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", [m for m in manifests() if kind_of(m) not in FIELDS], ids=kind_of)
def test_manifest_is_valid(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@each_pod
def test_pod_is_valid_whoever_makes_it(pod: Manifest, version: str) -> None:
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod}
    kubernetes_validate.validate(manifest, version, strict=True)


def check_shape(value: Any, shape: Any, where: str) -> None:
    if isinstance(shape, dict):
        assert value.keys() <= shape.keys(), where
        for name in value:
            check_shape(value[name], shape[name], f"{where}.{name}")
    elif isinstance(shape, list):
        for item in value:
            check_shape(item, shape[0], where)
    else:
        assert type(value) is (dict if shape in (OBJECT, POD) else shape), where


@pytest.mark.parametrize("manifest", [m for m in manifests() if kind_of(m) in FIELDS], ids=kind_of)
def test_custom_manifest_has_only_fields_that_exist(manifest: Manifest) -> None:
    assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}
    check_shape(manifest["spec"], FIELDS[kind_of(manifest)], manifest["kind"])


# Agreement with the images and with compose.yaml


@each_pod
def test_pod_is_confined_as_the_images_allow(pod: Manifest) -> None:
    users = {user for path in (ROOT / "Dockerfile", FOLDER / "cluster.Dockerfile") for user in dockerfile("USER", path)}
    context = pod["securityContext"]
    assert users == {f"{context['runAsUser']}:{context['runAsGroup']}"}
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["fsGroup"] == context["runAsGroup"], "reads the key, writes to the volume"
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} == container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


@each_pod
def test_what_a_pod_mounts_exists(pod: Manifest) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for c in pod["containers"] for mount in c["volumeMounts"]} == volumes.keys()
    claims = {v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v}
    assert claims <= {found("PersistentVolumeClaim")["metadata"]["name"]}
    (command,) = re.findall(r"kubectl create secret generic (\S+) --from-literal=(\w+)=", deployment_page())
    if "key" in volumes:
        (mount,) = (m for c in pod["containers"] for m in c["volumeMounts"] if m["name"] == "key")
        assert volumes["key"]["secret"] == {"secretName": command[0], "defaultMode": 0o440}
        assert environment(pod["containers"][0])["PARAMETERS_keyFile"] == f"{mount['mountPath']}/{command[1]}"


def deployment_page() -> str:
    return (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["Deployment", "KServe"])
def test_service_has_the_memory_and_the_time_that_it_needs(name: str) -> None:
    pod, (container,) = PODS[name], PODS[name]["containers"]
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["classifier"]
    resources = container["resources"]
    assert "below 1 GB of memory" in " ".join(deployment_page().split())
    assert resources["requests"]["memory"] == "1Gi"
    assert resources["limits"]["memory"] == composed["mem_limit"].replace("g", "Gi")
    assert resources["limits"]["cpu"].isdecimal(), "usable_cores() rounds"
    waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    ends = server._SECONDS_TO_FINISH + server._SECONDS_TO_EXIT
    assert pod["terminationGracePeriodSeconds"] > waits + ends


def test_bundle_lies_where_the_image_expects_it() -> None:
    defaults = Parameters.load({"rootDir": "/data"})
    bundle = Layout(defaults, with_annotations=False).bundle.folder.relative_to("/data").as_posix()
    (mount,) = (m for m in service()["volumeMounts"] if m["name"] == "data")
    assert mount == {
        "name": "data",
        "mountPath": env_of(ROOT / "Dockerfile")["PARAMETERS_bundle"],
        "subPath": bundle,
        "readOnly": True,
    }
    (volume,) = (v for v in PODS["Deployment"]["volumes"] if v["name"] == "data")
    assert volume["persistentVolumeClaim"]["readOnly"] is True
    model, claim = found("InferenceService")["spec"]["predictor"]["model"], found("PersistentVolumeClaim")
    assert model["storageUri"] == f"pvc://{claim['metadata']['name']}/{bundle}"
    assert environment(PODS["KServe"]["containers"][0])["PARAMETERS_bundle"] == "/mnt/models", "KServe's own choice"


def test_kserve_runs_the_same_container() -> None:
    (other,) = PODS["KServe"]["containers"]
    for name in ("image", "resources", "securityContext", "lifecycle"):
        assert other[name] == service()[name]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        expected = json.loads(json.dumps(service()[probe]).replace('"http"', "8080"))
        assert other[probe] == expected
    runtime, model = found("ServingRuntime"), found("InferenceService")["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {known["name"] for known in runtime["spec"]["supportedModelFormats"]}
    assert [model["protocolVersion"]] == runtime["spec"]["protocolVersions"] == ["v2"]


def test_ports_are_the_containers() -> None:
    (exposed,), (port,) = dockerfile("EXPOSE"), service()["ports"]
    assert str(port["containerPort"]) == exposed == env_of(ROOT / "Dockerfile")["PARAMETERS_port"]
    (of_service,) = found("Service")["spec"]["ports"]
    (rule,) = found("NetworkPolicy", "service.yaml")["spec"]["ingress"]
    (monitored,) = found("ServiceMonitor")["spec"]["endpoints"]
    assert of_service["targetPort"] == rule["ports"][0]["port"] == port["name"]
    assert monitored["port"] == of_service["name"]
    assert [p["containerPort"] for p in PODS["KServe"]["containers"][0]["ports"]] == [port["containerPort"]]


def test_objects_find_each_other() -> None:
    deployment = found("Deployment")
    name, labels = deployment["metadata"]["name"], deployment["spec"]["template"]["metadata"]["labels"]
    (spread,) = PODS["Deployment"]["topologySpreadConstraints"]
    selectors = [deployment["spec"]["selector"], found("PodDisruptionBudget")["spec"]["selector"]]
    selectors += [found("NetworkPolicy", "service.yaml")["spec"]["podSelector"], spread["labelSelector"]]
    assert all(selector == {"matchLabels": labels} for selector in selectors)
    assert found("Service")["spec"]["selector"] == labels
    assert found("ServiceMonitor")["spec"]["selector"] == {"matchLabels": found("Service")["metadata"]["labels"]}
    target = found("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": name}
    assert PODS["Deployment"]["serviceAccountName"] == found("ServiceAccount")["metadata"]["name"]
    assert "replicas" not in deployment["spec"], "applying it would undo what the autoscaler did"


# Agreement with the code


@each_pod
def test_parameters_exist(pod: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    for container in pod["containers"]:
        for name, value in environment(container).items():
            monkeypatch.setenv(name, value)
    Parameters.load()


@pytest.fixture(scope="module")
def kept(new_client: NewClient) -> TestClient:
    """The service as the Deployment starts it: a key, and its hosts."""
    names = environment(service())["PARAMETERS_serve_allowedHosts"].split(",")
    return new_client(access=Access(KEY, hosts=allowed_hosts(names, listening_on="0.0.0.0")))


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_are_answered_even_if_the_queue_is_full(
    kept: TestClient, probe: str, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = service()[probe]["httpGet"]
    assert get["port"] == service()["ports"][0]["name"]
    asked = {"Host": "192.0.2.9:8080"}  # a name that is not allowed, and no key
    running: Service = kept.app.state.service  # type: ignore[attr-defined]
    monkeypatch.setattr(running.workers, "_ahead_of", lambda count: 10**6)
    refused = kept.post("/predict", content=picture, headers={"Host": POD_IP, "Authorization": f"Bearer {KEY}"})
    assert refused.status_code == 503
    assert kept.get(get["path"], headers=asked).status_code == 200
    monkeypatch.setattr(type(running.workers), "are_stuck", True)
    assert kept.get(get["path"], headers=asked).status_code == 503


def test_prometheus_gets_the_metric_of_the_autoscaler(kept: TestClient) -> None:
    (endpoint,) = found("ServiceMonitor")["spec"]["endpoints"]
    (name,) = (m["pods"]["metric"]["name"] for m in found("HorizontalPodAutoscaler")["spec"]["metrics"] if "pods" in m)
    headers = {"Host": f"{POD_IP}:8080", "Authorization": f"Bearer {KEY}"}
    text = kept.get(endpoint["path"], headers=headers).text
    assert f"# TYPE {name} gauge\n" in text
    assert f"\n{name} 0.0\n" in text, "one number, without labels"
    assert kept.get(endpoint["path"], headers={"Host": POD_IP}).status_code == 401, "so it is told the key"
    (key,) = (v["secret"]["secretName"] for v in PODS["Deployment"]["volumes"] if "secret" in v)
    assert endpoint["authorization"]["credentials"]["name"] == key
    assert environment(service())["PARAMETERS_keyFile"].endswith(f"/{endpoint['authorization']['credentials']['key']}")


# The Ray cluster


def test_nodes_are_the_same_but_for_what_ray_starts() -> None:
    spec = found("RayJob")["spec"]["rayClusterSpec"]
    (workers,) = spec["workerGroupSpecs"]
    assert workers["template"] == spec["headGroupSpec"]["template"]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={spec['rayVersion']}" in constraints
    (container,) = workers["template"]["spec"]["containers"]
    data = env_of(FOLDER / "cluster.Dockerfile")["PARAMETERS_rootDir"]
    assert {"name": "data", "mountPath": data} in container["volumeMounts"]
    assert dockerfile("FROM", FOLDER / "cluster.Dockerfile") == dockerfile("FROM")


def test_nodes_answer_only_each_other_and_the_operator() -> None:
    labels = {"app": "image-classification-cluster"}
    job = found("RayJob")
    for template in templates(job["spec"], FIELDS[kind_of(job)]):
        assert template["metadata"]["labels"] == labels
    policy = found("NetworkPolicy", "cluster.yaml")["spec"]
    assert policy["podSelector"] == {"matchLabels": labels}
    assert policy["ingress"][0] == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert all(rule["ports"] == [{"port": 8265}] for rule in policy["ingress"][1:])


def test_job_runs_the_scripts_in_order() -> None:
    """KubeRay puts the entrypoint into a line for bash, so all of it is one word of `sh -c`."""
    shell, option, line = shlex.split(found("RayJob")["spec"]["entrypoint"])
    first, *commands = line.split(" && ")
    path = FOLDER / "cluster.Dockerfile"
    assert (shell, option, first) == ("sh", "-c", f"cd {dockerfile('WORKDIR', path)[0]}")
    assert "scripts scripts" in dockerfile("COPY", path)
    steps = []
    for program, script, *arguments in map(shlex.split, commands):
        assert program == "python"
        assert (ROOT / script).parent == SCRIPTS
        overrides, _ = parse(arguments, Parameters, flags=flags_of(runpy.run_path(str(ROOT / script))["main"]))
        steps.append((Path(script).stem, Parameters.load(overrides).cluster))
    assert steps == [(step, "auto" if step in ("1_prepareData", "3_runDNN") else "none") for step in STEPS]


def test_image_of_a_node_has_what_the_scripts_need() -> None:
    path = FOLDER / "cluster.Dockerfile"
    sources = [source for rest in dockerfile("COPY", path) for source in shlex.split(rest)[:-1]]
    ignored = (FOLDER / "cluster.Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert [line[1:] for line in ignored if line.startswith("!")] == sources
    assert all((ROOT / source).exists() for source in sources)
    dynamic = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["dynamic"]
    wanted = {*dynamic["dependencies"]["file"], *dynamic["optional-dependencies"]["cluster"]["file"]}
    assert {source for source in sources if source.startswith("requirements")} == wanted
    (install,) = (rest for rest in dockerfile("RUN", path) if "pip install" in rest)
    assert set(re.findall(r"-r (\S+)", install)) == wanted
