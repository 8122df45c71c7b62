"""What `make serve` passes on to the service; nothing is run."""

import os
import shlex
import subprocess

import pytest

from tests.support.servers import REPOSITORY


@pytest.mark.parametrize(
    ("arguments", "variables", "flags"),
    [
        ((), {}, []),
        # A flag would win over the variables, which the service reads itself.
        ((), {"RESNET_SERVICE_PORT": "9000", "RESNET_SERVICE_HOST": "0.0.0.0"}, []),  # noqa: S104 - not bound
        (("PORT=9001",), {"RESNET_SERVICE_PORT": "9000"}, ["--port", "9001"]),
    ],
)
def test_variables_of_the_service_count_unless_make_is_told_otherwise(
    arguments: tuple[str, ...], variables: dict[str, str], flags: list[str]
) -> None:
    # Also within `make test`, whose own flags and level would show.
    environment = {name: value for name, value in os.environ.items() if name not in ("PORT", "MAKEFLAGS", "MAKELEVEL")}
    commands = subprocess.run(
        ["make", "--dry-run", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=REPOSITORY,
        env={**environment, **variables},
    ).stdout.splitlines()
    program, *passed = shlex.split(commands[-1])
    assert program.endswith("/resnet-service")
    assert passed == ["serve", *flags]
