"""Import paths of version 1.0 that have moved; importing one loads the module at its new path.

Stub modules at the old paths would do the same, but would list each concept twice among the package's files.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

MOVED = {
    "resnet_service.datasets": "resnet_service.evaluation.datasets",
    "resnet_service.decode": "resnet_service.imaging.decode",
    "resnet_service.fake": "resnet_service.inference.fake",
    "resnet_service.labels": "resnet_service.models.labels",
    "resnet_service.metadata": "resnet_service.models.metadata",
    "resnet_service.prepare": "resnet_service.export",
    "resnet_service.prepare.checkpoint": "resnet_service.models.checkpoint.checkpoint",
    "resnet_service.preprocess": "resnet_service.imaging.preprocess",
    "resnet_service.probe": "resnet_service.server.healthcheck",
}


class _MovedModule:
    """Loads an old path as a module that holds the names of the new one."""

    def __init__(self, new: str) -> None:
        self._new = new

    def create_module(self, spec: ModuleSpec) -> None:
        """Return nothing, so that Python creates an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with the names of the new one."""
        warnings.warn(f"{module.__name__} has moved to {self._new}.", DeprecationWarning, stacklevel=2)
        __import__(self._new)
        names = vars(sys.modules[self._new]).items()
        vars(module).update({name: value for name, value in names if not name.startswith("__")})

    def get_code(self, name: str) -> CodeType:
        """Return the code of the new module, which ``python -m`` runs."""
        spec = find_spec(self._new)
        code: CodeType = spec.loader.get_code(self._new)  # type: ignore[union-attr]  # it is a file of this package
        return code


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        new = MOVED.get(name)
        # Python imports submodules only from packages.
        has_children = any(other.startswith(f"{name}.") for other in MOVED)
        return None if new is None else ModuleSpec(name, _MovedModule(new), is_package=has_children)  # type: ignore[arg-type]


def install() -> None:
    """Make the old paths importable; modules that exist take precedence."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)
