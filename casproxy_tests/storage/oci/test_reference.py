"""What a tenant's ``Repo`` means, as every Docker tool reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.digest import EMPTY_DIGEST
from casproxy.errors import SecretMalformed
from casproxy.storage.oci.reference import parse_repo

HUB = "https://registry-1.docker.io"


@pytest.mark.parametrize(
    ("text", "origins", "path"),
    [
        ("registry.example/team/cas", ["https://registry.example"], "team/cas"),
        ("registry.example:5000/cas", ["https://registry.example:5000"], "cas"),
        ("registry.example", ["https://registry.example"], ""),
        ("Registry.Example/cas", ["https://registry.example"], "cas"),
        ("registry.example:443/cas", ["https://registry.example"], "cas"),
        ("org/cas", [HUB], "org/cas"),
        ("org", [HUB], "org"),
        ("localhost/cas", [HUB], "localhost/cas"),
        ("docker.io/org/cas", [HUB], "org/cas"),
        ("index.docker.io/org", [HUB], "org"),
        ("localhost:5000/cas", ["https://localhost:5000", "http://localhost:5000"], "cas"),
        ("127.0.0.1/cas", ["https://127.0.0.1", "http://127.0.0.1"], "cas"),
        ("127.0.0.1:80/cas", ["https://127.0.0.1:80", "http://127.0.0.1"], "cas"),
        ("10.1.2.3:5000/cas", ["https://10.1.2.3:5000", "http://10.1.2.3:5000"], "cas"),
        ("172.32.0.1/cas", ["https://172.32.0.1"], "cas"),
        ("[::1]:5000/cas", ["https://[::1]:5000", "http://[::1]:5000"], "cas"),
        ("r.localhost/cas", ["https://r.localhost", "http://r.localhost"], "cas"),
        ("r.local/cas", ["https://r.local"], "cas"),
        ("old.example:5000/cas", ["https://old.example:5000", "http://old.example:5000"], "cas"),
    ],
)
def test_repo(text: str, origins: list[str], path: str) -> None:
    repo = parse_repo(text, {"old.example:5000"})
    assert [str(origin) for origin in repo.origins] == origins
    assert repo.path == path
    assert repo.of(EMPTY_DIGEST) == "/".join(part for part in (path, f"chainloop-{EMPTY_DIGEST.hex}") if part)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "registry.example/",
        "registry.example:port",
        "registry.example//cas",
        "registry.example/../cas",
        "registry.example/./cas",
        "registry.example/Cas",
        "registry.example/ca s",
        "registry.example/cas?x",
        "registry.example/cas#x",
        "registry.example/cas%2f",
        "https://registry.example/cas",
        "user@registry.example/cas",
        "registry.example:port/cas",
        "registry.example:99999/cas",
        "reg istry.example/cas",
        "registry.example/" + "a" * 181,
    ],
)
def test_what_is_no_repo(text: str) -> None:
    with pytest.raises(SecretMalformed) as caught:
        parse_repo(text)
    assert not text or text not in str(caught.value)


def test_the_longest_repository_fits() -> None:
    assert len(parse_repo("registry.example/" + "a" * 180).of(EMPTY_DIGEST)) == 255


@given(st.text(max_size=80))
def test_hostile_repos_are_repos_or_refused(text: str) -> None:
    try:
        repo = parse_repo(text)
    except SecretMalformed:
        return
    assert repo.path.isascii() and not {"", ".", ".."} & set(repo.of(EMPTY_DIGEST).split("/"))
