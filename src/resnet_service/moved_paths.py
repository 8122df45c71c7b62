"""Import paths of version 1.0 that have moved; importing one gives the module at its new path.

Stub modules at the old paths would do the same, but would list each concept twice among the package's files. Modules
that few programs need are imported in functions: every health check imports this one.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

MOVED = {
    "resnet_service.datasets": "resnet_service.evaluation.datasets",
    "resnet_service.decode": "resnet_service.imaging.decode",
    "resnet_service.fake": "resnet_service.inference.fake",
    "resnet_service.labels": "resnet_service.models.labels",
    "resnet_service.metadata": "resnet_service.models.metadata",
    "resnet_service.prepare.checkpoint": "resnet_service.models.checkpoint.checkpoint",
    "resnet_service.preprocess": "resnet_service.imaging.preprocess",
    "resnet_service.probe": "resnet_service.server.healthcheck",
}
# Packages that are gone, but for the modules above.
EMPTY = {"resnet_service.prepare"}


class _MovedModule:
    """Loads a module at its new path in place of the old one."""

    def __init__(self, new: str) -> None:
        self._new = new

    def create_module(self, spec: ModuleSpec) -> None:
        """Return nothing: Python makes an empty module, which ``exec_module`` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        """Import the module at its new path, and let the old name stand for it."""
        import warnings
        from importlib import import_module

        warnings.warn(f"{module.__name__} has moved to {self._new}.", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = import_module(self._new)

    def get_code(self, name: str) -> CodeType:
        """Return the code of the new module, which ``python -m`` runs."""
        from importlib.util import find_spec

        spec = find_spec(self._new)
        code: CodeType = spec.loader.get_code(self._new)  # type: ignore[union-attr]  # it is a file of this package
        return code


class _EmptyPackage:
    """Loads a package without contents, so that modules below it can be imported."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Return nothing, so that Python creates an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module empty."""


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in EMPTY:
            return ModuleSpec(name, _EmptyPackage(), is_package=True)  # type: ignore[arg-type]
        return ModuleSpec(name, _MovedModule(MOVED[name])) if name in MOVED else None  # type: ignore[arg-type]


def install() -> None:
    """Make the old paths importable; modules that exist take precedence."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)
