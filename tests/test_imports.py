"""The one direction of imports, read from the source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path("src/resnet_service")

# Who may import whom. A room that is not listed here may be imported by nobody.
RULES: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "cpus": set(),
    "memory": set(),
    "probe": set(),
    "executor": {"errors"},
    "keys": {"errors"},
    "observation": set(),
    "metrics": set(),
    "importing": set(),
    "logs": {"importing", "observation"},
    "tracing": {"errors", "observation"},
    "metadata": {"errors"},
    "labels": {"errors", "files", "metadata"},
    "translations": {"errors", "labels", "metadata"},
    "avif": {"errors"},
    "structure": {"avif", "errors"},
    "decode": {"errors", "structure"},
    "preprocess": {"errors", "metadata"},
    "activation_map": {"errors"},
    "overlay": {"preprocess"},
    "ranking": {"errors", "labels"},
    "default_model": {"errors"},
    "settings": {"classifier", "decode", "errors", "keys", "metadata", "runtime"},
    "options": {"settings"},
    "packed": {"errors", "files", "metadata"},
    "prepare": {"datasets", "decode", "errors", "files", "labels", "metadata", "packed", "prepare", "preprocess"},
    # It compares with the very runtime that will serve.
    "prepare.agreement": {"errors", "metadata", "packed", "prepare", "preprocess", "runtime.openvino"},
    "runtime": {
        *("errors", "files", "importing", "metadata", "packed", "preprocess", "prepare.checkpoint", "prepare.tail"),
        "runtime",
    },
    "classifier": {
        *("activation_map", "decode", "errors", "labels", "metadata", "overlay", "preprocess", "ranking", "runtime"),
        "translations",
    },
    "opening": {"classifier", "cpus", "default_model", "runtime", "settings"},
    "datasets": {"errors", "labels"},
    "evaluation": {"classifier", "datasets", "errors", "labels", "metadata"},
    "plots": {"evaluation"},
    "batch": {"batch", "classifier", "errors", "files", "ranking", "runtime"},
    "fake": {
        "activation_map",
        "classifier",
        "decode",
        "labels",
        "metadata",
        "overlay",
        "preprocess",
        "ranking",
        "translations",
    },
    "api": {
        *("api", "classifier", "errors", "executor", "keys", "labels", "logs", "memory", "metadata", "metrics"),
        *("observation", "opening", "overlay", "preprocess", "ranking", "settings", "tracing", "translations"),
    },
    "protocol": {"api.problems", "api.state", "errors", "observation"},
    "ray": {"api", "batch", "classifier", "cpus", "errors", "files", "labels", "memory", "server", "settings"},
    "server": {"api", "errors", "opening", "protocol", "settings"},
    "start": {"errors", "importing", "memory", "opening", "server", "settings"},
    # It shares nothing with the service but the wire, and is used where nothing else of it is installed.
    "client": {"client"},
    "cli": {
        *("classifier", "cpus", "datasets", "default_model", "errors", "evaluation", "files", "labels", "logs"),
        *("batch", "metadata", "options", "packed", "plots", "prepare", "ray", "settings", "start"),
    },
    "__main__": {"cli", "memory"},
    "__init__": set(),
}

# Dear or dangerous packages, each with the only rooms that may know it.
CONFINED = {
    "fastapi": {"api", "server"},
    "httpx": {"client"},
    "starlette": {"api", "ray.serving"},
    "uvicorn": {"protocol", "server"},
    "httptools": {"protocol"},
    "PIL": {"decode", "preprocess", "datasets", "overlay", "structure"},
    "torch": {"prepare", "runtime.torch"},
    "torchvision": {"prepare"},
    "timm": {"prepare"},
    "onnx": {"prepare"},
    "nncf": {"prepare"},
    "openvino": {"runtime.openvino"},
    "matplotlib": {"plots"},
    "prometheus_client": {"metrics"},
    "structlog": {"logs"},
    "opentelemetry": {"tracing"},
    "pyarrow": {"batch"},
    "fsspec": {"batch"},
    "ray": {"ray"},
    "typer": {"cli", "options"},
    "rich": {"cli"},
    "pydantic_settings": {"settings"},
    "urllib": {"prepare.sources"},
    "subprocess": {"prepare.sources", "prepare.conversion"},
}
# cli turns the name of a dtype into torch's own; nothing else of torch is used there.
ALLOWED = {("cli", "torch")}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            is_package = module.startswith("resnet_service") and (PACKAGE.parent / module.replace(".", "/")).is_dir()
            found |= {f"{module}.{alias.name}" for alias in node.names} if is_package else {module}
    return found


def within(name: str, rooms: set[str]) -> bool:
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in rooms)


@pytest.mark.parametrize("path", MODULES, ids=room)
def test_imports_go_one_way(path: Path) -> None:
    allowed = RULES.get(room(path)) or RULES[room(path).split(".")[0]]
    for name in imports(path):
        if name.startswith("resnet_service.") and not name.endswith("__version__"):
            assert within(name.removeprefix("resnet_service."), allowed), f"{room(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=room)
def test_dear_packages_stay_in_their_rooms(path: Path) -> None:
    for name in imports(path):
        package = name.split(".")[0]
        if package in CONFINED and (room(path), package) not in ALLOWED:
            assert within(room(path), CONFINED[package]), f"{room(path)} imports {name}"


def test_the_package_itself_imports_nothing_that_is_not_there_already() -> None:
    assert imports(PACKAGE / "__init__.py") == {"sys"}
