"""What we override or read of other packages without their documentation promising it.

A release that changes one of these fails here by name, with what depends on it. pyproject.toml bounds each package from
above, so that such a release is tried before it is installed.
"""

import asyncio
import ctypes
import importlib
import inspect
import re
import signal
import tomllib
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import h11
import pytest
import uvicorn
from packaging.requirements import Requirement
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from tests.support.servers import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = chain.from_iterable(PROJECT["optional-dependencies"].values())
DECLARED = [Requirement(text) for text in (*PROJECT["dependencies"], *EXTRAS)]

# Packages of which something below is used.
BOUNDED = (
    *("uvicorn", "h11", "starlette", "fastapi", "typer", "structlog", "pillow", "openvino"),
    *("torch", "onnx", "ray"),
)


class Used(NamedTuple):
    """A name in a package, the parameters it is called or overridden with, and what we need it for."""

    name: str  # "module:qualified.name"
    parameters: tuple[str, ...]
    reason: str


USED = (
    # uvicorn and h11: server/http_protocol.py, server/http_parser.py, server/server.py
    Used("uvicorn.protocols.http.h11_impl:STATUS_PHRASES", (), "the first line of answers to refused requests"),
    *(
        Used(f"uvicorn.protocols.http.h11_impl:H11Protocol.{name}", parameters, reason)
        for name, parameters, reason in (
            ("connection_made", ("transport",), "makes room for a connection beyond the limit, and has its own parser"),
            ("connection_lost", ("exc",), "tells the application that the client has left"),
            ("data_received", ("data",), "measures the time of a head"),
            ("eof_received", (), "answers a client that sends no more"),
            ("handle_events", (), "bounds one turn of the event loop, and holds back later requests"),
            ("on_response_complete", (), "goes on with the next request"),
            ("send_400_response", ("msg",), "replaced: refused requests get our error document"),
            ("shutdown", (), "waits a moment for a request on its way"),
            ("_unset_keepalive_if_required", (), "a refused connection has no such time limit"),
        )
    ),
    Used("uvicorn.protocols.http.flow_control:FlowControl.pause_reading", (), "holds back later requests"),
    Used("uvicorn.protocols.http.flow_control:FlowControl.resume_reading", (), "replaced: not during a hold"),
    Used("uvicorn.protocols.http.flow_control:CLOSE_HEADER", (), "says that the connection closes"),
    Used("uvicorn.protocols.http.flow_control:HIGH_WATER_LIMIT", (), "does not resume reading above it"),
    Used("h11:Connection.__init__", ("our_role", "max_incomplete_event_size"), "starts again for each request"),
    Used("h11:Connection.trailing_data", (), "takes back bytes of the next request"),
    Used("h11._receivebuffer:ReceiveBuffer.maybe_extract_lines", (), "is strict about lines of heads and trailers"),
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
    # Pillow: imaging/decoder_limits.py, imaging/decoding_memory.py, imaging/decode.py
    Used("PIL.BmpImagePlugin:BmpRleDecoder", (), "the slow decoder for which large run-length coded BMP are refused"),
    Used("PIL.TiffImagePlugin:ImageFileDirectory_v2.get", (), "tiles, strips and turn of a TIFF before it is decoded"),
    Used("PIL.JpegImagePlugin:JpegImageFile.draft", ("mode", "size"), "decodes a JPEG at a reduced scale"),
    Used("PIL._imaging:__file__", (), "the library with libtiff, whose messages are silenced"),
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
    async def state() -> H11Protocol:
        return H11Protocol(uvicorn.Config(app, log_config=None), ServerState(), {"service": None})

    protocol = asyncio.run(state())
    assert protocol.app_state == {"service": None}
    assert protocol.connections is protocol.server_state.connections
    assert list(protocol.server_state.default_headers) == []
    assert protocol.cycle is None
    assert isinstance(protocol.conn, h11.Connection), "ours takes its place"
    assert protocol.flow is None
    assert FlowControl(asyncio.Transport()).read_paused is False


def test_uvicorns_cycle_holds_the_state_that_ours_reads() -> None:
    parameters = inspect.signature(RequestResponseCycle.__init__).parameters
    given: dict[str, Any] = dict.fromkeys(name for name in parameters if name != "self")
    made = RequestResponseCycle(**{**given, "conn": h11.Connection(h11.SERVER), "default_headers": []})
    assert (made.response_started, made.response_complete, made.disconnected) == (False, False, False)
    assert (made.keep_alive, made.default_headers, bytes(made.body)) == (True, [], b"")


def test_h11_starts_again_with_the_bytes_of_the_next_request() -> None:
    connection = h11.Connection(h11.SERVER, 1000)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 1\r\n\r\nxGET")
    assert [type(connection.next_event()) for _ in range(3)] == [h11.Request, h11.Data, h11.EndOfMessage]
    assert connection.trailing_data == (b"GET", False)
    connection.__init__(h11.SERVER, 1000)  # type: ignore[misc]
    assert connection.their_state is h11.IDLE
    assert connection.trailing_data == (b"", False)


def test_uvicorns_server_holds_the_state_that_ours_reads() -> None:
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    assert (server.started, server.should_exit) == (False, False)
    assert server.server_state.connections == set()
    before = signal.getsignal(signal.SIGINT)
    with server.capture_signals():
        assert signal.getsignal(signal.SIGINT) == server.handle_exit, "also where it was ignored"
    assert signal.getsignal(signal.SIGINT) == before


def test_starlettes_words_for_too_many_files() -> None:
    """api/uploads.py tells them from other errors of a form by their first words."""
    from starlette import formparsers

    assert "Too many files" in inspect.getsource(formparsers)


def test_pillows_libtiff_can_be_silenced() -> None:
    """imaging/decode.py takes away its handler of errors; a library that hides the function would write again."""
    from PIL import _imaging

    assert ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler


def test_pillows_name_of_the_run_length_decoder() -> None:
    """imaging/decoder_limits.py reads it from an opened image's tiles."""
    from PIL import Image

    assert "bmp_rle" in Image.DECODERS
