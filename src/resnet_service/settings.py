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
    max_body_bytes: int = Field(10 * 2**20, ge=1024, description="Largest request body, in bytes.")
    max_pixels: int = Field(
        DEFAULT_MAX_PIXELS, ge=1, description="Largest picture, in pixels; found out before decoding."
    )
    keep_alive: int = Field(75, ge=1, description="Seconds an idle connection stays open; longer than your proxy's.")
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
