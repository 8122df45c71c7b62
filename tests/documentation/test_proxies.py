"""The limits and timeouts of the proxies' configurations fit the service's defaults; `tests/web` runs nginx's."""

import re

import pytest
import yaml

from resnet_service.settings import Settings
from tests.support.servers import REPOSITORY

PAGE = (REPOSITORY / "docs" / "proxies.md").read_text()
SETTINGS = Settings()
RECIPES = dict.fromkeys(("nginx", "caddyfile", "yaml"), "")
for kind, text in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
    RECIPES[kind] += text


def values(pattern: str) -> list[int]:
    """Return the numbers that a pattern finds in the configurations; there are some."""
    found = [int(number) for recipe in RECIPES.values() for number in re.findall(pattern, recipe)]
    assert found, pattern
    return found


def test_all_proxies_have_a_recipe() -> None:
    assert all(RECIPES.values())
    assert yaml.safe_load(RECIPES["yaml"])["http"].keys() == {"routers", "middlewares", "services", "serversTransports"}


def test_the_largest_body_of_the_service_passes() -> None:
    largest = max(SETTINGS.max_body_bytes, SETTINGS.max_batch_bytes)
    mebibytes = values(r"client_max_body_size (\d+)m;") + values(r"max_size (\d+)MiB")
    sizes = [2**20 * size for size in mebibytes] + values(r"maxRequestBodyBytes: (\d+)")
    assert len(sizes) == 4
    assert set(sizes) == {largest}
    assert f"`--max-body-bytes` ({SETTINGS.max_body_bytes // 2**20} MiB)" in PAGE
    assert f"`--max-batch-bytes` ({SETTINGS.max_batch_bytes // 2**20} MiB)" in PAGE


@pytest.mark.parametrize("name", ["proxy_read_timeout", "response_header_timeout", "responseHeaderTimeout:"])
def test_a_proxy_waits_for_the_deadline(name: str) -> None:
    assert min(values(rf"{name} (\d+)s")) > SETTINGS.deadline
    assert f"`--deadline` ({SETTINGS.deadline:.0f} s)" in PAGE


@pytest.mark.parametrize("name", ["closed after", "keepalive", "idleConnTimeout:"])
def test_a_proxy_closes_idle_connections_first(name: str) -> None:
    assert max(values(rf"{name} (\d+)(?:s| idle seconds)")) < SETTINGS.keep_alive
    assert f"`--keep-alive` ({SETTINGS.keep_alive} s)" in PAGE
