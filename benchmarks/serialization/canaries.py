"""Files with a canary: code that creates an empty file if loading the file runs it, and nothing else."""

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.serialization.processes import Failed, LoadingProcess, Setup
from benchmarks.serialization.results import Attempt


class Canary:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        """Have the unpickler call ``Path.touch``; it would call any other function as readily."""
        return Path.touch, (self.path,)


class ScriptedCanary(nn.Module):
    """A module of TorchScript that writes a file when it is loaded; TorchScript may write files, not run Python."""

    path: str

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images."""
        return images

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        """Keep the path."""
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        """Write the file."""
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.path)


def plant(name: str, source: Path, target: Path, canary: Path) -> None:
    """Write a file of the format ``name`` that has a canary, made from ``source``, a file of that format."""
    match name:
        case "state_dict":
            torch.save({**torch.load(source, weights_only=True), "note": Canary(canary)}, target)
        case "checkpoint":
            torch.save({**torch.load(source, weights_only=True), "provenance": Canary(canary)}, target)
        case "pickle":
            model = torch.load(source, weights_only=False)
            model.note = Canary(canary)
            torch.save(model, target)
        case "torchscript":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is deprecated
                torch.jit.script(ScriptedCanary(str(canary))).save(str(target))  # type: ignore[no-untyped-call]
        case "torch-export":
            _plant_in_archive(source, target, canary)
        case _:  # formats without code: a pickle under their name
            target.write_bytes(_pickled(canary))


def attempt(loader: str, file: Path, canary: Path, setup: Setup) -> Attempt:
    """Load a file in a fresh process, and see whether its canary appears."""
    canary.unlink(missing_ok=True)
    with LoadingProcess(loader, setup) as process:
        found = process.load(file)
    return Attempt(canary.exists(), found.error if isinstance(found, Failed) else "")


def _pickled(content: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Canary(content), buffer)
    return buffer.getvalue()


def _plant_in_archive(source: Path, target: Path, canary: Path) -> None:
    """Mark one weight of a ``torch.export`` archive as pickled, and put the canary in its place."""
    planted: str | None = None
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as changed:
        entries = archive.namelist()
        for name in sorted(entries, key=lambda name: not name.endswith("weights_config.json")):
            data = archive.read(name)
            if planted is None:
                config: dict[str, Any] = json.loads(data)
                first = next(iter(config["config"].values()))
                first["use_pickle"] = True
                planted, data = f"/{first['path_name']}", json.dumps(config).encode()
            elif name.endswith(planted):
                data = _pickled(canary)
            changed.writestr(name, data)
