"""Text from the operator to values."""

from __future__ import annotations

import base64
from ipaddress import ip_network
from pathlib import Path

import pytest

from omninervous.errors import UserError
from omninervous.ganglion import options
from omninervous.ganglion.options import HostPort
from omninervous.wire.address import Endpoint


@pytest.mark.parametrize(
    ("text", "place", "key"),
    [
        ("1.2.3.4", HostPort("1.2.3.4", 51820), None),
        ("1.2.3.4:99", HostPort("1.2.3.4", 99), None),
        ("nucleus.omni.io", HostPort("nucleus.omni.io", 51820), None),
        ("Nucleus.Omni.io:1#KEY", HostPort("nucleus.omni.io", 1), "KEY"),
        ("[2001:db8::1]:7", HostPort("2001:db8::1", 7), None),
        ("[2001:DB8::1]", HostPort("2001:db8::1", 51820), None),
        ("2001:db8::1#KEY", HostPort("2001:db8::1", 51820), "KEY"),
        ("my_host", HostPort("my_host", 51820), None),
    ],
)
def test_a_nucleus_is_understood(text: str, place: HostPort, key: str | None) -> None:
    assert options.parse_nucleus(text) == (place, key)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":51820", "a b", "-x", "x-", "a..b", "1.2.3", "1.2.3.4.5", "256.1.1.1", "host:0", "host:65536", "host:x"),
        *(
            "host:",
            "host:-1",
            "host:+5",
            "host: 5",
            "host:٣",
            "[::1",
            "[::1]x",
            "[::1]:",
            "host#",
            "fe80::1",
            "[fe80::1]:5",
        ),
        *("0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1", "::", "x" * 64, ".".join(["x" * 60] * 5), "höst:5"),
    ],
)
def test_a_malformed_nucleus_is_named_in_the_error(text: str) -> None:
    with pytest.raises(UserError, match="--nucleus"):
        options.parse_nucleus(text)


@pytest.mark.parametrize("text", ["1.2.3.4", "host", "[2001:db8::1]", "2001:db8::1"])
def test_an_endpoint_without_port_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"port is missing, write .*:51820"):
        options.parse_endpoint(text)


def test_a_host_port_says_whether_it_is_an_address() -> None:
    assert HostPort("2001:db8::1", 5).literal == Endpoint("2001:db8::1", 5)
    assert HostPort("host", 5).literal is None
    assert str(HostPort("2001:db8::1", 5)) == "[2001:db8::1]:5"


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "+1", "1.0", "0x10", "１", " 1", "1 ", "9" * 5000])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--port"):
        options.parse_port(text)


def test_allowed_ips_are_networks_as_wg_writes_them() -> None:
    assert options.parse_allowed_ips("10.9.0.2/32, fd00::1/64,10.0.0.1") == (
        ip_network("10.9.0.2/32"),
        ip_network("fd00::/64"),
        ip_network("10.0.0.1/32"),
    )


@pytest.mark.parametrize("text", ["", ",", "10.0.0.0/33", "10.0.0/8", "x", "10.0.0.1;10.0.0.2"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--allowed-ips"):
        options.parse_allowed_ips(text)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "x" * 16, ".", "..", "omni0\n", "näme", "eth0%d"])
def test_what_cannot_name_an_interface_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--dev"):
        options.parse_device(text, "--dev")


@pytest.mark.parametrize("text", ["", "1279", "9217", "x", "1380.5", "-1380", "9" * 5000])
def test_an_mtu_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--mtu"):
        options.parse_mtu(text)


@pytest.mark.parametrize("text", ["a_b", "-a", "a-", "a.b", "x" * 64, "ä", "a b"])
def test_a_name_is_one_host_label(text: str) -> None:
    with pytest.raises(UserError, match="--name"):
        options.parse_label(text)


def test_a_secret_file_holds_one_line(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("  a secret with blanks  \n\n")
    assert options.read_secret_file(str(file)) == "  a secret with blanks  "
    file.write_text("one\ntwo\n")
    with pytest.raises(UserError, match="more than one line"):
        options.read_secret_file(str(file))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 5000])
def test_a_strange_secret_file_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(UserError, match="--secret-file") as refused:
        options.read_secret_file(str(file))
    assert "xxx" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--secret-file .*/none: No such file"):
        options.read_secret_file(str(tmp_path / "none"))


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_can_name_no_file_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"--secret-file .* is no file name"):
        options.read_secret_file(name)


def test_a_psk_file_is_what_wg_genpsk_writes(tmp_path: Path) -> None:
    file = tmp_path / "psk"
    file.write_text(base64.b64encode(bytes(range(32))).decode() + "\n")
    assert options.read_psk_file(str(file)) == bytes(range(32))
    for wrong in ("", "x", base64.b64encode(bytes(31)).decode()):
        file.write_text(wrong)
        with pytest.raises(UserError, match=r"--psk-file .*wg genpsk"):
            options.read_psk_file(str(file))
