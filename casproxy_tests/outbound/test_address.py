"""Origins and URLs: what is read, and what is refused rather than guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.outbound.address import InvalidUrl, Origin, Url


@pytest.mark.parametrize(
    ("text", "origin", "target"),
    [
        ("https://r.example", Origin("https", "r.example", 443), "/"),
        ("https://r.example:443/v2/", Origin("https", "r.example", 443), "/v2/"),
        ("http://R.Example:5000/a?b=c#d", Origin("http", "r.example", 5000), "/a?b=c"),
        ("https://[::1]:5000/a", Origin("https", "::1", 5000), "/a"),
        ("https://[0:0::0:1]/a", Origin("https", "::1", 443), "/a"),
        ("https://127.1/a", Origin("https", "127.1", 443), "/a"),
        ("https://a_b.example/%7e?_state=x%3D%3D", Origin("https", "a_b.example", 443), "/%7e?_state=x%3D%3D"),
    ],
)
def test_urls(text: str, origin: Origin, target: str) -> None:
    assert Url.parse(text) == Url(origin, target)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/relative",
        "//r.example/a",
        "ftp://r.example/",
        "file:///etc/passwd",
        "https://",
        "https://user@r.example/",
        "https://user:password@r.example/",
        "https://r.example:0x50/",
        "https://r.example:99999/",
        "https://r.example/a b",
        "https://r.example/\r\nHost: evil",
        "https://ré.example/",
        "https://[::1/",
        "https://[::1%25eth0]/",
        "https://-/..%00",
        "https://a..b/",
    ],
)
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(InvalidUrl):
        Url.parse(text)


@pytest.mark.parametrize(
    ("location", "want"),
    [
        ("/v2/u/1?_state=a%3D", "https://r.example:5000/v2/u/1?_state=a%3D"),
        ("2?x=y", "https://r.example:5000/v2/2?x=y"),
        ("?x=y", "https://r.example:5000/v2/1?x=y"),
        ("https://storage.example/b?sig=1", "https://storage.example/b?sig=1"),
        ("//storage.example/b", "https://storage.example/b"),
    ],
)
def test_locations(location: str, want: str) -> None:
    assert str(Url.parse("https://r.example:5000/v2/1").join(location)) == want


def test_a_query_is_kept_and_extended() -> None:
    plain = Url.parse("https://r.example/u")
    assert plain.with_query(digest="sha256:ab").target == "/u?digest=sha256:ab"
    assert Url.parse("https://r.example/u?_s=a%2Fb").with_query(digest="x/y").target == "/u?_s=a%2Fb&digest=x%2Fy"


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (Origin("https", "r.example", 443), "r.example"),
        (Origin("http", "r.example", 443), "r.example:443"),
        (Origin("https", "::1", 5000), "[::1]:5000"),
    ],
)
def test_the_host_header(origin: Origin, authority: str) -> None:
    assert origin.authority == authority


@given(st.text(max_size=60))
def test_hostile_locations_are_urls_or_refused(location: str) -> None:
    try:
        found = Url.parse("https://r.example/v2/").join(location)
    except InvalidUrl:
        return
    assert found.origin.scheme in ("http", "https")
    assert found.target.startswith("/") and found.target.isascii() and " " not in found.target
    assert Url.parse(str(found)) == found
