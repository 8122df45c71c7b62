"""Every option, declared once: its name is the flag and the variable, its description the help and the docs."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from resnet_service.api_keys import Keys
from resnet_service.errors import InvalidSettings
from resnet_service.types import DEFAULT_MAX_PIXELS, Fidelity, RuntimeName
from resnet_service.validation import describe

ENV_PREFIX = "RESNET_SERVICE_"
# Variables only, no flags: on a command line, everybody on the machine can read them.
SECRETS = frozenset({"api_keys"})

# What browsers send as Origin: scheme, host, and the port where it is not the scheme's own.
_ORIGIN = re.compile(r"https?://[^\sA-Z/?#@,*]+")


def _parse_keys(value: Any) -> Any:
    return Keys.parse(value) if isinstance(value, str) else value


def _parse_origins(value: Any) -> Any:
    return list(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        # Everybody, or those that are named: both at once would be an oversight.
        if origins != ("*",) and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin such as https://example.org, and not * alone")
    return origins


class Settings(BaseSettings):
    """Options of the service; each is a flag of ``serve`` and a variable ``RESNET_SERVICE_…``, and flags win."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    checkpoint: Path | None = Field(
        None, description="Model file to serve, exported or not; by default the newest in ./checkpoints."
    )
    runtime: RuntimeName = Field("auto", description="What runs it; auto: openvino if exported, torch if not.")
    arch: str | None = Field(
        None, description="Architecture, for a file that is a bare state_dict and does not name it."
    )
    labels: Path | None = Field(None, description="Label set file; by default the one that the model names.")
    workers: int = Field(0, ge=0, le=256, description="Networks computed at once; 0 for one per available CPU.")
    threads: int = Field(
        0, ge=0, le=256, description="CPU threads for one image; 0 for all when it is alone and one when not."
    )
    decode: Fidelity = Field(
        "fast", description="exact: pixels equal to the reference transforms to the bit; fast: nearly, sooner."
    )
    queue: int = Field(32, ge=0, le=1024, description="Requests that may wait for each worker; more are answered 429.")
    deadline: float = Field(
        30, gt=0, le=3600, description="Seconds from an image's arrival to its answer; 504 after that."
    )
    max_body_bytes: int = Field(10 * 2**20, ge=1024, description="Largest request body, in bytes.")
    max_receiving_bytes: int = Field(
        256 * 2**20,
        ge=1024,
        description="Bytes of all bodies in memory at once, until each is answered; more are answered 429.",
    )
    max_pixels: int = Field(
        DEFAULT_MAX_PIXELS, ge=1, description="Largest image, in pixels; found out before decoding."
    )
    max_batch: int = Field(16, ge=1, le=1024, description="Images in one request, where it can carry several.")
    max_batch_bytes: int = Field(
        32 * 2**20, ge=1024, description="Largest body of /predict/batch; each image is held to max_body_bytes."
    )
    max_header_bytes: int = Field(16 * 2**10, ge=1024, description="Largest request line and headers, in bytes.")
    max_connections: int = Field(512, ge=1, description="Connections open at once; more are answered 503.")
    header_seconds: float = Field(10, gt=0, le=3600, description="Seconds in which a request's headers must arrive.")
    body_seconds: float = Field(60, gt=0, le=3600, description="Seconds in which a request's body must arrive.")
    min_body_rate: int = Field(
        16 * 2**10, ge=0, description="Slowest body, in bytes a second on average, after 5 seconds of grace."
    )
    send_seconds: float = Field(20, gt=0, le=3600, description="Seconds a client may take to read an answer.")
    keep_alive: int = Field(75, ge=1, description="Seconds an idle connection stays open; longer than your proxy's.")
    drain_delay: float = Field(
        0, ge=0, le=300, description="Seconds from SIGTERM, when it gets unready, until it takes no more requests."
    )
    api_keys: Annotated[InstanceOf[Keys] | None, BeforeValidator(_parse_keys), NoDecode] = Field(
        None, description="API keys, separated by commas, of 16 characters or more; a request then needs one of them."
    )
    api_keys_file: Path | None = Field(None, description="File of more such keys, one a line; read again on SIGHUP.")
    metrics_open: bool = Field(True, description="Whether /metrics needs no key where other paths do.")
    cors_origins: Annotated[
        tuple[str, ...], BeforeValidator(_parse_origins), AfterValidator(_check_origins), NoDecode
    ] = Field((), description="Origins whose pages may call this service, separated by commas; * for all.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe message to log.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json: a JSON object a line; console: to be read; auto: console on a terminal, else json."
    )
    tracing: bool = Field(
        False, description="Send OpenTelemetry spans, as the variables OTEL_* say; needs the extra otel."
    )

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
        for name in ("max_body_bytes", "max_batch_bytes"):
            if self.max_receiving_bytes < getattr(self, name):
                raise ValueError(
                    f"max_receiving_bytes ({self.max_receiving_bytes}) has no room for one body of {name} "
                    f"({getattr(self, name)})"
                )
        return self


def load_settings(**flags: object) -> Settings:
    """Read the environment and lay the flags that were given (not ``None``) over it.

    Raises:
        InvalidSettings: A value is of the wrong type or out of range; the message names each.

    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise InvalidSettings(f"Settings (flags or {ENV_PREFIX}* variables): {describe(error)}.") from error
