"""What we override or read of other packages without their documentation promising it.

A release that changes one of these fails here by name, with what depends on it. pyproject.toml bounds each package from
above, so that such a release is tried before it is installed.
"""

import asyncio
import importlib
import inspect
import re
import signal
import tomllib
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import httptools
import pytest
import uvicorn
from packaging.requirements import Requirement
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tests.support.servers import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = chain.from_iterable(PROJECT["optional-dependencies"].values())
DECLARED = [Requirement(text) for text in (*PROJECT["dependencies"], *EXTRAS)]

# Packages of which something below is used.
BOUNDED = (
    *("uvicorn", "httptools", "starlette", "fastapi", "typer", "structlog", "pillow", "openvino"),
    *("torch", "onnx", "ray"),
)


class Used(NamedTuple):
    """A name in a package, the parameters it is called or overridden with, and what we need it for."""

    name: str  # "module:qualified.name"
    parameters: tuple[str, ...]
    reason: str


USED = (
    # uvicorn: server/http_protocol.py, server/server.py
    Used("uvicorn.protocols.http.httptools_impl:STATUS_LINE", (), "the first line of answers to refused requests"),
    *(
        Used(f"uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.{name}", parameters, reason)
        for name, parameters, reason in (
            ("connection_made", ("transport",), "refuses connections beyond the limit"),
            ("connection_lost", ("exc",), "tells the application that the client has left"),
            ("data_received", ("data",), "replaced: bounds request heads, ignores Upgrade"),
            ("on_message_begin", (), "begins to measure a head"),
            ("on_url", ("url",), "measures the request line"),
            ("on_header", ("name", "value"), "measures and counts header fields"),
            ("on_headers_complete", (), "refuses heads that are too large, before the application starts"),
            ("on_body", ("body",), "ignores the body of a refused request"),
            ("on_message_complete", (), "ends a request, unless it was refused"),
            ("send_400_response", ("msg",), "replaced: malformed requests get our error document"),
            ("shutdown", (), "waits a moment for a request on its way"),
            ("_start_asgi_task", ("cycle", "app"), "knows which of several pipelined requests is being answered"),
            ("_unset_keepalive_if_required", (), "data_received calls it, as uvicorn's own does"),
        )
    ),
    Used("uvicorn:Server.startup", ("sockets",), "begins the sweep, and says that the service is ready"),
    Used("uvicorn:Server.shutdown", ("sockets",), "marks the service as draining first"),
    Used("uvicorn:Server.handle_exit", ("sig", "frame"), "delays the drain; ends at once at a second signal"),
    Used("uvicorn:Server.on_tick", ("counter",), "ends when the delay is over"),
    Used("uvicorn:Server.capture_signals", (), "handles SIGINT and SIGTERM, and raises them again at the end"),
    # Starlette and FastAPI: api/uploads.py, api/admission.py, api/openapi/document.py
    Used("starlette.formparsers:MultiPartParser.spool_max_size", (), "keeps uploads in memory, off the disk"),
    Used(
        "starlette.formparsers:MultiPartParser.__init__",
        ("headers", "stream", "max_files", "max_fields", "max_part_size"),
        "bounds a form",
    ),
    Used("fastapi.routing:APIRoute.get_route_handler", (), "admits a request before its body is read"),
    Used("fastapi:FastAPI.openapi", (), "completes the OpenAPI document"),
    # Typer: cli/flags.py
    Used("typer.utils:get_params_from_function", ("func",), "reads the options from a signature that we set"),
    # structlog: observability/logs.py
    Used("structlog.dev:plain_traceback", ("sio", "exc_info"), "prints tracebacks without local variables"),
    Used("structlog.dev:ConsoleRenderer.__init__", ("pad_event_to", "exception_formatter"), "sets that formatter"),
    # Pillow: imaging/decoder_limits.py, imaging/decode.py
    Used("PIL.BmpImagePlugin:BmpRleDecoder", (), "the slow decoder for which large run-length coded BMP are refused"),
    Used("PIL.TiffImagePlugin:ImageFileDirectory_v2.get", (), "tile sizes of a TIFF before it is decoded"),
    Used("PIL.JpegImagePlugin:JpegImageFile.draft", ("mode", "size"), "decodes a JPEG at a reduced scale"),
    # OpenVINO: runtimes/openvino.py
    Used("openvino.utils:replace_output_update_name", (), "drops Identity nodes, which cannot be evaluated"),
    Used("openvino:Model.evaluate", (), "computes the last layer's weights without compiling"),
    Used("openvino:InferRequest.infer", ("share_outputs",), "reads outputs without copying"),
    # PyTorch and ONNX: models/traced.py, export/pytorch_graph.py
    Used("torch.export:export", ("mod", "args", "dynamic_shapes"), "traces a network"),
    Used("torch.export:ExportedProgram.module", ("check_guards",), "leaves out checks of each input's shape"),
    Used("torch.fx:Graph.set_codegen", ("codegen",), "lets the traced network return several tensors"),
    Used("torch.fx:Graph.find_nodes", ("op",), "finds the network's end"),
    Used("torch.onnx:export", ("dynamo", "dynamic_shapes", "input_names", "output_names"), "makes the ONNX graph"),
    Used("torch.onnx:ONNXProgram.model_proto", (), "the graph in memory"),
    Used("onnx.helper:set_model_props", ("model", "dict_value"), "puts the metadata into an exported model"),
)


def found(name: str) -> Any:
    module, _, path = name.partition(":")
    value: Any = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("used", USED, ids=lambda used: used.name)
def test_it_is_there_with_its_parameters(used: Used) -> None:
    value: Callable[..., Any] = found(used.name)
    if used.parameters:
        assert set(used.parameters) <= set(inspect.signature(value).parameters), used.reason


@pytest.mark.parametrize("package", BOUNDED)
def test_it_is_bounded_above(package: str) -> None:
    requirements = [requirement for requirement in DECLARED if requirement.name.partition("[")[0] == package]
    assert requirements
    assert all("<" in {clause.operator for clause in requirement.specifier} for requirement in requirements)


def test_each_module_named_here_belongs_to_a_bounded_package() -> None:
    packages = {re.split(r"[.:]", used.name)[0] for used in USED}
    assert packages - set(BOUNDED) == {"PIL"}, "PIL is Pillow's module"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing."""


def test_uvicorns_protocol_holds_the_state_that_ours_reads() -> None:
    async def state() -> HttpToolsProtocol:
        return HttpToolsProtocol(uvicorn.Config(app, log_config=None), ServerState(), {"service": None})

    protocol = asyncio.run(state())
    assert protocol.app_state == {"service": None}
    assert protocol.connections is protocol.server_state.connections
    assert list(protocol.server_state.default_headers) == []
    assert list(protocol.pipeline) == []
    assert protocol.cycle is None
    assert isinstance(protocol.parser, httptools.HttpRequestParser)
    protocol.on_message_begin()
    protocol.on_url(b"/path")
    protocol.on_header(b"Upgrade", b"x")
    assert (protocol.url, protocol.headers) == (b"/path", [(b"upgrade", b"x")]), "a head is put together again of these"
    assert "state" in protocol.scope


def test_uvicorns_cycle_holds_the_state_that_ours_reads() -> None:
    parameters = inspect.signature(RequestResponseCycle.__init__).parameters
    assert {"scope", "message_event", "keep_alive"} <= set(parameters)
    made = RequestResponseCycle(**{name: None for name in parameters if name != "self"})  # type: ignore[arg-type]
    assert (made.response_started, made.response_complete, made.disconnected) == (False, False, False)


def test_uvicorns_server_holds_the_state_that_ours_reads() -> None:
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    assert (server.started, server.should_exit) == (False, False)
    assert server.server_state.connections == set()
    before = signal.getsignal(signal.SIGINT)
    with server.capture_signals():
        assert signal.getsignal(signal.SIGINT) == server.handle_exit, "also where it was ignored"
    assert signal.getsignal(signal.SIGINT) == before


def test_httptools_tells_where_another_protocol_would_begin() -> None:
    """What follows an Upgrade is parsed again from there."""
    parser = httptools.HttpRequestParser(object())
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    head = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as stop:
        parser.feed_data(head + b"rest")
    assert stop.value.args[0] == len(head)
    assert parser.should_upgrade()


def test_starlettes_words_for_too_many_files() -> None:
    """api/uploads.py tells them from other errors of a form by their first words."""
    from starlette import formparsers

    assert "Too many files" in inspect.getsource(formparsers)


def test_pillows_name_of_the_run_length_decoder() -> None:
    """imaging/decoder_limits.py reads it from an opened image's tiles."""
    from PIL import Image

    assert "bmp_rle" in Image.DECODERS
