"""All settings of the service; each declaration is also a flag, an environment variable and documentation."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from resnet_service.api_keys import Keys
from resnet_service.defaults import DEFAULT_MAX_DECODING_BYTES, DEFAULT_MAX_PIXELS
from resnet_service.errors import InvalidSettings
from resnet_service.system.cpus import available_cpus
from resnet_service.types import Fidelity, LogFormat, RuntimeName
from resnet_service.validation import describe

ENV_PREFIX = "RESNET_SERVICE_"
# Variables only, not flags: all users of a machine can read its command lines.
SECRETS = frozenset({"api_keys"})

# An Origin as browsers send it: scheme, host, and the port unless it is the scheme's default.
_ORIGIN = re.compile(r"https?://[^\sA-Z/?#@,*]+")


def _parse_keys(value: Any) -> Any:
    return Keys.parse(value) if isinstance(value, str) else value


def _parse_origins(value: Any) -> Any:
    return list(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        # Either all origins or named ones; both at once is a mistake.
        if origins != ("*",) and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is not an origin such as https://example.org; to allow all origins, use * by itself"
            )
    return origins


_LOOPBACK = ("127.0.0.0/8", "::1/128")


def _parse_proxies(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    names = filter(None, (part.strip() for part in value.split(",")))
    texts = [text for name in names for text in (_LOOPBACK if name == "loopback" else (name,))]
    return tuple(map(_network, texts))


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither an address nor a network such as 10.0.0.0/8, nor loopback") from None


class Settings(BaseSettings):
    """Settings of the service; each is a flag of ``serve`` and a variable ``RESNET_SERVICE_…``. Flags win."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all addresses.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 for any free port.")
    checkpoint: Path | None = Field(
        None,
        description="Model file to serve, an exported model or a checkpoint; by default the newest in ./checkpoints.",
    )
    runtime: RuntimeName = Field(
        "auto",
        description="What runs the network; auto: openvino, or torch for checkpoints that only PyTorch can load.",
    )
    arch: str | None = Field(None, description="Architecture, for a bare state_dict, which does not name its own.")
    labels: Path | None = Field(None, description="Label set file; by default the one that the model names.")
    workers: int = Field(
        0, ge=0, le=256, description="Images classified at once by all processes; 0 for one per available CPU."
    )
    processes: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that share workers and connections, at most one per worker; 0 for one per four "
        "available CPUs.",
    )
    max_process_bytes: int = Field(
        0,
        ge=0,
        description="Resident memory in bytes beyond which one of several processes is replaced, unless it needs as "
        "much from the start; 0 for no limit.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="CPU threads per image. 0: with OpenVINO, one per worker for a single image, and one each for "
        "several at once; with PyTorch, one.",
    )
    decode: Fidelity = Field(
        "fast",
        description="exact: pixels equal to the reference transforms; fast: near-identical pixels, decoded faster.",
    )
    queue: int = Field(
        32,
        ge=0,
        le=1024,
        description="Requests that may wait for each worker; further ones get 429. Each process has the queue of "
        "its own workers.",
    )
    deadline: float = Field(
        30, gt=0, le=3600, description="Seconds from an image's arrival to its response; 504 after that."
    )
    max_body_bytes: int = Field(10 * 2**20, ge=1024, description="Largest request body, in bytes.")
    max_receiving_bytes: int = Field(
        256 * 2**20,
        ge=1024,
        description="Bytes of unanswered request bodies in memory at once; further ones get 429.",
    )
    max_pixels: int = Field(DEFAULT_MAX_PIXELS, ge=1, description="Largest image, in pixels; checked before decoding.")
    max_decoding_bytes: int = Field(
        DEFAULT_MAX_DECODING_BYTES,
        ge=2**25,  # less would refuse nearly all photographs
        description="Memory, in bytes, of all images while they are decoded; an image waits until its part is free.",
    )
    max_batch: int = Field(
        16, ge=1, le=1024, description="Maximum number of images per request, for routes that take several."
    )
    max_batch_bytes: int = Field(
        32 * 2**20, ge=1024, description="Largest body of /predict/batch, in bytes; max_body_bytes limits each image."
    )
    max_header_bytes: int = Field(16 * 2**10, ge=1024, description="Largest request line and headers, in bytes.")
    max_connections: int = Field(
        512,
        ge=1,
        description="Connections open at once, divided among processes. A further one takes the place of an idle one, "
        "or gets 503.",
    )
    header_seconds: float = Field(10, gt=0, le=3600, description="Seconds in which a request's headers must arrive.")
    body_seconds: float = Field(60, gt=0, le=3600, description="Seconds in which a request's body must arrive.")
    min_body_rate: int = Field(
        16 * 2**10, ge=0, description="Slowest request body, in bytes per second on average, after the first 5 seconds."
    )
    send_seconds: float = Field(20, gt=0, le=3600, description="Seconds that a client may take to read a response.")
    keep_alive: int = Field(
        75, ge=1, description="Seconds that an idle connection stays open; set it longer than your proxy's."
    )
    drain_delay: float = Field(
        0,
        ge=0,
        le=300,
        description="Seconds after SIGTERM in which the service is unready, but still accepts requests.",
    )
    api_keys: Annotated[InstanceOf[Keys] | None, BeforeValidator(_parse_keys), NoDecode] = Field(
        None, description="API keys, separated by commas, each of 16 characters or more; requests then need one."
    )
    api_keys_file: Path | None = Field(
        None, description="File of further API keys, one per line; read again on SIGHUP."
    )
    metrics_open: bool = Field(True, description="Serve /metrics without an API key, even if other paths need one.")
    cors_origins: Annotated[
        tuple[str, ...], BeforeValidator(_parse_origins), AfterValidator(_check_origins), NoDecode
    ] = Field((), description="Origins whose pages may call the service (CORS), separated by commas; * for all.")
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_parse_proxies), NoDecode] = (
        Field(
            (),
            description="Proxies whose X-Forwarded-For tells the client's address in the log, and whose "
            "X-Forwarded-Prefix is removed from paths: addresses or networks, separated by commas; loopback for this "
            "machine.",
        )
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest severity to log.")
    log_format: LogFormat = Field(
        "auto",
        description="json: one JSON object per line; console: for people; auto: console on a terminal, else json.",
    )
    tracing: bool = Field(
        False, description="Send OpenTelemetry spans, configured by the variables OTEL_*; needs the extra otel."
    )

    @property
    def worker_count(self) -> int:
        """Number of images classified at once."""
        return self.workers or available_cpus()

    @model_validator(mode="after")
    def _budget_holds_one_body(self) -> Self:
        for name in ("max_body_bytes", "max_batch_bytes"):
            if self.max_receiving_bytes < getattr(self, name):
                raise ValueError(
                    f"max_receiving_bytes ({self.max_receiving_bytes}) is smaller than one body of {name} "
                    f"({getattr(self, name)})"
                )
        return self


def load_settings(**flags: object) -> Settings:
    """Read the settings from the environment, overridden by flags that are not ``None``.

    Raises:
        InvalidSettings: Values are of the wrong type or out of range; the message names each.

    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise InvalidSettings(f"Settings (flags or {ENV_PREFIX}* variables): {describe(error)}.") from error
