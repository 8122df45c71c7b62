from ipaddress import ip_network

import pytest

from resnet_service.api.client_address import ClientAddresses
from resnet_service.errors import InvalidSettings
from resnet_service.settings import load_settings

PROXIES = ClientAddresses([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["forged, 203.0.113.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("fd00::1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["198.51.100.7, x\nforged, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["fe80::1%\x1b[2J"], "fe80::1"),
        ("10.0.0.1", ["198.51.100.7" + ",10.0.0.2" * 5000], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        (None, ["198.51.100.7"], None),
    ],
)
def test_only_trusted_proxies_are_believed(peer: str | None, forwarded: list[str], client: str | None) -> None:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    scope = {"client": None if peer is None else (peer, 1), "headers": headers}
    assert PROXIES.of(scope) == client
    assert ClientAddresses().of(scope) == peer


def test_proxies_are_named_by_address_network_or_name() -> None:
    named = load_settings(trusted_proxies="192.0.2.1, 10.0.0.0/8,loopback").trusted_proxies
    trusted = ClientAddresses(named)
    assert all(map(trusted.is_trusted, ("192.0.2.1", "10.1.2.3", "127.0.0.1", "::1")))
    assert not any(map(trusted.is_trusted, ("192.0.2.2", "11.0.0.1", "proxy", None)))
    with pytest.raises(InvalidSettings, match="neither an address nor a network"):
        load_settings(trusted_proxies="proxy.example")
