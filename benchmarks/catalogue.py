"""The servers of the comparison, each with its start command and its best settings.

``main`` has the servers of the results. ``tuning`` has the same servers with other settings, to find the best ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from benchmarks.environments import Interpreters
from benchmarks.files import PRECISIONS, Files, Precision
from benchmarks.paths import REPOSITORY
from resnet_service.system.cpus import available_cpus

Family = Literal["ours", "peer", "same model"]
Engine = Literal["torch", "openvino"]
_ENGINES: tuple[Engine, ...] = ("torch", "openvino")

# The model whose answers a server must give: the checkpoint in PyTorch, or an exported model.
Reference = Literal["torch", "int8", "bf16", "fp32"]


@dataclass(frozen=True)
class Server:
    """A server: its start command, its request format, and the model whose answers are expected.

    ``{port}`` in the command is replaced by the port. ``form_field`` is ``None`` if images are sent as raw bodies.
    """

    name: str
    title: str
    family: Family
    about: str
    command: tuple[str, ...]
    reference: Reference
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    path: str = "/predict"
    form_field: str | None = "file"


class Catalogue:
    """The servers, for given interpreters and files."""

    def __init__(self, interpreters: Interpreters, files: Files) -> None:
        self._pythons = interpreters
        self._files = files
        self._cpus = str(available_cpus())

    def main(self) -> list[Server]:
        """Return the servers of the comparison."""
        apart = {"WORKERS": self._cpus, "THREADS": "1"}
        return [
            *(self._exported(precision) for precision in PRECISIONS),
            self._exported("int8", raw=True),
            self._processes(),
            *(self._checkpoint(runtime) for runtime in ("torch", "torchscript", "torch-dynamic-int8")),
            self._flask(),
            self._litserve("torch", apart),
            self._bentoml("torch", apart),
            self._torchserve(apart),
            self._litserve("openvino", apart),
            self._bentoml("openvino", apart),
        ]

    def tuning(self) -> list[list[Server]]:
        """Return each peer with several settings, and this service with its own choice of threads and with others.

        They are in groups, since all at once would not fit into memory, and settings are compared within a server.
        """
        each, one = self._cpus, "1"
        together, apart = {"WORKERS": one, "THREADS": each}, {"WORKERS": each, "THREADS": one}
        batches = {"BATCH": "8", "BATCH_MILLISECONDS": "5"}
        inside = {"WORKERS": one, "CALLS": each}  # several calls at once within one process
        groups = [
            [self._streams(workers, threads) for workers, threads in (("0", "0"), (one, each), (each, one))],
            [self._torchserve(settings) for settings in (together, apart, apart | batches)],
        ]
        for engine in _ENGINES:
            # OpenVINO counts the threads of all its streams, PyTorch those of one call.
            calls = inside | {"THREADS": each if engine == "openvino" else one}
            litserve = [together, together | batches, apart, apart | batches, apart | {"API_SERVERS": one}]
            bentoml = [together, together | batches, apart, calls]
            if engine == "torch":  # a line of user code, not a setting of the server
                litserve.append(apart | {"CHANNELS_LAST": one})
                bentoml.append(apart | {"CHANNELS_LAST": one})
            groups.append([self._litserve(engine, settings) for settings in litserve])
            groups.append([self._bentoml(engine, settings) for settings in bentoml])
        return [[_with_settings(server) for server in group] for group in groups]

    def _exported(self, precision: Precision, *, raw: bool = False) -> Server:
        about = f"exported in {precision.upper()}, OpenVINO" + ("; images sent as raw bodies" if raw else "")
        name, title = (f"{precision}-raw", f"{precision.upper()}, raw body") if raw else (precision, precision.upper())
        return self._ours(name, title, about, self._files.exported[precision], "openvino", precision, raw=raw)

    def _processes(self) -> Server:
        server = self._exported("int8")
        command = (*server.command, "--processes", self._cpus)
        about = f"exported in INT8, OpenVINO; {self._cpus} processes"
        return replace(
            server, name="int8-processes", title=f"{server.title}, {self._cpus} processes", command=command, about=about
        )

    def _streams(self, workers: str, threads: str) -> Server:
        server = self._exported("int8")
        command = (*server.command, "--workers", workers, "--threads", threads)
        return replace(server, command=command, about=f"workers {workers}, threads {threads}")

    def _checkpoint(self, runtime: str) -> Server:
        return self._ours(runtime, runtime, f"checkpoint, {runtime}", self._files.checkpoint, runtime, "torch")

    def _ours(
        self, name: str, title: str, about: str, model: Path, runtime: str, reference: Reference, *, raw: bool = False
    ) -> Server:
        served = ("--port", "{port}", "--checkpoint", str(model), "--runtime", runtime)
        python = self._pythons.serve if runtime == "openvino" else self._pythons.own
        command = (str(python), "-m", "resnet_service", "serve", *served)
        variables = {"PYTHONPATH": str(REPOSITORY / "src")}
        form_field = None if raw else "file"
        return Server(
            name, f"resnet-service {title}", "ours", about, command, reference, variables, form_field=form_field
        )

    def _flask(self) -> Server:
        command = (str(self._pythons.torch), "-m", "benchmarks.servers.flask_torch")
        variables = {"MODEL": str(self._files.state_dict)}
        return Server("flask", "Flask", "peer", "as in tutorials", command, "torch", variables)

    def _litserve(self, engine: Engine, settings: Mapping[str, str]) -> Server:
        return self._peer("LitServe", engine, ("-m", f"benchmarks.servers.litserve_{engine}"), settings)

    def _bentoml(self, engine: Engine, settings: Mapping[str, str]) -> Server:
        service = f"benchmarks.servers.bentoml_{engine}:" + ("Batched" if "BATCH" in settings else "Single")
        arguments = ("-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", "{port}")
        # Turns BentoML's telemetry off.
        return self._peer("BentoML", engine, arguments, settings, BENTOML_DO_NOT_TRACK="True")

    def _torchserve(self, settings: Mapping[str, str]) -> Server:
        command = (str(self._pythons.torch), "-m", "benchmarks.servers.torchserve")
        archive = self._files.archive
        return Server(
            name="torchserve",
            title="TorchServe",
            family="peer",
            about=_settings_text(settings),
            command=command,
            reference="torch",
            variables={"MODEL": str(archive), **settings},
            path=f"/predictions/{archive.stem}",
            form_field="data",
        )

    def _peer(
        self, title: str, engine: Engine, arguments: tuple[str, ...], settings: Mapping[str, str], **variables: str
    ) -> Server:
        with_torch = engine == "torch"
        model = self._files.state_dict if with_torch else self._files.exported["int8"]
        python = self._pythons.torch if with_torch else self._pythons.openvino
        return Server(
            name=title.lower() if with_torch else f"{title.lower()}-int8",
            title=title if with_torch else f"{title} with our INT8 model",
            family="peer" if with_torch else "same model",
            about=_settings_text(settings),
            command=(str(python), *arguments),
            reference="torch" if with_torch else "int8",
            variables={"MODEL": str(model), **settings, **variables},
        )


def _settings_text(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name.lower().replace('_', ' ')} {value}" for name, value in settings.items())


def _with_settings(server: Server) -> Server:
    """Return the server with its settings in its name."""
    slug = server.about.replace(", ", "-").replace(" ", "")
    return replace(server, name=f"{server.name}-{slug}", title=f"{server.title}: {server.about}")
