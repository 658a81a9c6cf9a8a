"""Which addresses may be looked at for somebody who only named a URL."""

import pytest

from dropoffd.stores.elsewhere.judge import check_public, is_public


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
     "169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1",
     "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
     "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1"],
)  # fmt: skip
def test_what_only_this_host_reaches_is_refused(address: str) -> None:
    """Loopback, private and link-local ranges, and what stands for them in IPv6, are no public addresses."""
    assert not is_public(address)
    with pytest.raises(PermissionError, match="not public"):
        check_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_the_public_internet_is_allowed(address: str) -> None:
    """Whatever anybody reaches may be looked at."""
    check_public(address)
