"""What a process says of itself."""

from __future__ import annotations

import pytest

from cli.process import Listening


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", "the page is at http://127.0.0.1:8080/"),
        ("::1", "the page is at http://[::1]:8080/"),
        (
            "0.0.0.0",  # noqa: S104 - nothing listens here
            "the page is at http://127.0.0.1:8080/, and at port 8080 of every IPv4 address of this machine",
        ),
        ("::", "the page is at http://[::1]:8080/, and at port 8080 of every IPv6 address of this machine"),
        ("192.0.2.1", "the page is at http://192.0.2.1:8080/"),
        ("fe80::1%eth0", "the page is at http://[fe80::1%eth0]:8080/"),
    ],
)
def test_the_address_of_the_page_can_be_opened(host: str, said: str) -> None:
    assert Listening("http", host, 8080).page == said
