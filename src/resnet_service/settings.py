"""Every option, declared once: its name is the flag and the variable, its description the help and the docs."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from resnet_service.classifier import Fidelity
from resnet_service.decode import DEFAULT_MAX_PIXELS
from resnet_service.errors import InvalidSettings
from resnet_service.metadata import describe
from resnet_service.runtime import RuntimeName

ENV_PREFIX = "RESNET_SERVICE_"


class Settings(BaseSettings):
    """Options of the service; each is a flag of ``serve`` and a variable ``RESNET_SERVICE_…``, and flags win."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", protected_namespaces=())

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    checkpoint: Path | None = Field(
        None, description="Model file to serve, packed or not; by default the newest in ./checkpoints."
    )
    runtime: RuntimeName = Field("auto", description="What runs it; auto: openvino if packed, torch if not.")
    arch: str | None = Field(
        None, description="Architecture, for a file that is a bare state_dict and does not name it."
    )
    labels: Path | None = Field(None, description="Label set file; by default the one that the model names.")
    workers: int = Field(0, ge=0, le=256, description="Pictures worked on at once; 0 for one per available CPU.")
    threads: int = Field(
        0, ge=0, le=256, description="CPU threads for one picture; 0 for all when it is alone and one when not."
    )
    decode: Fidelity = Field(
        "fast", description="exact: pixels equal to the reference transforms to the bit; fast: nearly, sooner."
    )
    queue: int = Field(32, ge=0, le=1024, description="Requests that may wait for each worker; more are answered 429.")
    deadline: float = Field(
        30, gt=0, le=3600, description="Seconds from a picture's arrival to its answer; 504 after that."
    )
    max_body_bytes: int = Field(10 * 2**20, ge=1024, description="Largest request body, in bytes.")
    max_batch: int = Field(16, ge=1, le=256, description="Pictures in one /predict/batch.")
    max_batch_bytes: int = Field(
        32 * 2**20, ge=1024, description="Largest body of /predict/batch; each picture is held to max_body_bytes."
    )
    max_pixels: int = Field(
        DEFAULT_MAX_PIXELS, ge=1, description="Largest picture, in pixels; found out before decoding."
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
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe message to log.")


def load_settings(**flags: object) -> Settings:
    """Read the environment and lay the flags that were given (not ``None``) over it.

    Raises:
        InvalidSettings: A value is of the wrong type or out of range; the message names each.

    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise InvalidSettings(f"Settings (flags or {ENV_PREFIX}* variables): {describe(error)}.") from error
