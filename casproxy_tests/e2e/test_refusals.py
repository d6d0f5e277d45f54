"""What is refused is refused with the contract's code and text, and leaves the store byte for byte as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import jwt
import pytest

from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.auth.claims import Claims, Role
from casproxy.auth.mint import mint, payload_of
from casproxy.digest import Digest
from casproxy_tests.e2e.peer import Peer, gob_name, write_requests
from casproxy_tests.e2e.processes import Dev, tree

CONTENT = b"never stored"
DIGEST = Digest.of(CONTENT)
NAME = gob_name(DIGEST)
OTHER = Digest.of(b"something else")

Request = bytestream_pb2.WriteRequest


@pytest.fixture(autouse=True)
def store_stays_as_it_is(dev: Dev) -> Iterator[None]:
    before = tree(dev.store)
    yield
    assert tree(dev.store) == before


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


class Maker:
    """Makes tokens with the server's own key."""

    def __init__(self, dev: Dev) -> None:
        facts = dev.facts
        self.key = Path(facts["private_key"]).read_bytes()
        self.claims = Claims(Role.UPLOADER, facts["secret_id"], facts["backend"], facts["org_id"])

    def good(self, **changes: object) -> str:
        return mint(self.key, replace(self.claims, **changes), now=time.time())  # type: ignore[arg-type]

    def payload(self, **changes: object) -> str:
        payload = payload_of(self.claims, now=time.time()) | changes
        return jwt.encode({k: v for k, v in payload.items() if v is not None}, self.key, "ES512")


@pytest.fixture(scope="module")
def maker(dev: Dev) -> Maker:
    return Maker(dev)


def write(peer: Peer, requests: Iterable[Request], token: str | None = None) -> tuple[grpc.StatusCode, str]:
    return refused(lambda: peer.write(requests, token))


def test_wrong_digest(peer: Peer) -> None:
    code, text = write(peer, write_requests(gob_name(OTHER), [CONTENT]))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text == f"digest mismatch: got={DIGEST.hex}, want={OTHER.hex}"


def test_second_name_in_mid_stream(peer: Peer) -> None:
    requests = [Request(resource_name=NAME, data=CONTENT[:5]), Request(resource_name=gob_name(OTHER), data=CONTENT[5:])]
    assert write(peer, requests)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_data_after_finish_write(peer: Peer) -> None:
    requests = [Request(resource_name=NAME, data=CONTENT[:5], finish_write=True), Request(data=CONTENT[5:])]
    assert write(peer, requests)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_wrong_offset(peer: Peer) -> None:
    requests = [Request(resource_name=NAME, data=CONTENT[:5]), Request(write_offset=4, data=CONTENT[5:])]
    assert write(peer, requests)[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["", "nonsense", "//////"])
def test_no_name(peer: Peer, name: str) -> None:
    code, text = write(peer, [Request(resource_name=name, data=CONTENT, finish_write=True)])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "resourceName must be set" in text


@pytest.mark.parametrize("name", ["sha256:ABC", DIGEST.hex.upper(), f"compressed-blobs/zstd/{DIGEST.hex}/12"])
def test_other_names(peer: Peer, name: str) -> None:
    assert write(peer, [Request(resource_name=name, data=CONTENT, finish_write=True)])[0] is (
        grpc.StatusCode.INVALID_ARGUMENT
    )


def test_more_than_maxbytes(peer: Peer, maker: Maker) -> None:
    code, text = write(peer, write_requests(NAME, [CONTENT]), maker.good(max_bytes=5))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text == f"max size of upload exceeded: want={len(CONTENT)}, max=5"


def test_unknown_artifact(peer: Peer) -> None:
    assert refused(lambda: peer.read(DIGEST.hex))[0] is grpc.StatusCode.NOT_FOUND
    assert refused(lambda: peer.describe(str(DIGEST)))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("offset", "limit", "code"),
    [
        (-1, 0, grpc.StatusCode.OUT_OF_RANGE),
        (1_000_000, 0, grpc.StatusCode.OUT_OF_RANGE),
        (0, -1, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_ranges(peer: Peer, offset: int, limit: int, code: grpc.StatusCode) -> None:
    hello = Digest.of(b"hello from casproxy dev\n")
    assert refused(lambda: peer.read(hello.hex, read_offset=offset, read_limit=limit))[0] is code


def test_unknown_backend(peer: Peer, maker: Maker) -> None:
    code, text = write(peer, write_requests(NAME, [CONTENT]), maker.good(backend="Floppy"))
    assert (code, text) == (grpc.StatusCode.NOT_FOUND, 'backend "Floppy" not found')


def test_unknown_secret(peer: Peer, maker: Maker) -> None:
    code, _ = write(peer, write_requests(NAME, [CONTENT]), maker.good(secret_id="nobody"))
    assert code is grpc.StatusCode.FAILED_PRECONDITION


def tokens(maker: Maker) -> dict[str, tuple[str, str]]:
    good = maker.good()
    head, body, signature = good.split(".")
    return {
        "missing": ("", "JWT token is missing"),
        "malformed": ("not-a-token", "Token is invalid"),
        "expired": (maker.good(expires_at=time.time() - 60), "JWT token has expired"),
        "not yet valid": (maker.payload(nbf=int(time.time()) + 600), "JWT token has expired"),
        "wrong audience": (maker.payload(aud="somebody.else"), "token has invalid audience"),
        "wrong role": (maker.good(role=Role.DOWNLOADER), "invalid role, got=downloader, want=uploader"),
        "no secret id": (maker.payload(**{"secret-id": None}), "missing secret reference"),
        "no backend": (maker.payload(backend=None), "missing backend type"),
        "tampered": (f"{head}.{body[:-4]}AAAA.{signature}", ""),
    }


@pytest.mark.parametrize(
    "case",
    ["missing", "malformed", "expired", "not yet valid", "wrong audience", "wrong role", "no secret id", "no backend"],
)
def test_tokens_are_refused_with_the_texts_clients_match(peer: Peer, maker: Maker, case: str) -> None:
    token, text = tokens(maker)[case]
    assert write(peer, write_requests(NAME, [CONTENT]), token) == (grpc.StatusCode.UNAUTHENTICATED, text)


def test_a_tampered_token_is_refused(peer: Peer, maker: Maker) -> None:
    token, _ = tokens(maker)["tampered"]
    assert write(peer, write_requests(NAME, [CONTENT]), token)[0] is grpc.StatusCode.UNAUTHENTICATED


def test_an_uploader_cannot_read(peer: Peer) -> None:
    code, text = refused(lambda: peer.read(DIGEST.hex, peer.uploader))
    assert (code, text) == (grpc.StatusCode.UNAUTHENTICATED, "invalid role, got=uploader, want=downloader")


def test_no_token_in_the_log(dev: Dev, peer: Peer, maker: Maker) -> None:
    for token, _ in tokens(maker).values():
        write(peer, write_requests(NAME, [CONTENT]), token)
    text = (dev.directory / "dev.log").read_text()
    assert "UNAUTHENTICATED" in text
    for token in (peer.uploader, peer.downloader, *(token for token, _ in tokens(maker).values() if len(token) > 20)):
        assert token not in text
        assert token.split(".")[1] not in text
