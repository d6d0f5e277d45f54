"""The table: every error of ours has a status, trouble has an id, and causes stay in the log."""

from __future__ import annotations

import pytest
import structlog
import trio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from casproxy import errors
from casproxy.digest import EMPTY_DIGEST
from casproxy.rpc.api import ServerCall
from casproxy.rpc.errors import RpcError, StreamGone
from casproxy.services.errors import error_interceptor
from casproxy.wire.errors import BrokenMessage
from casproxy.wire.status import StatusCode
from casproxy_tests.fakes.call import FakeCall

H = EMPTY_DIGEST.hex
TABLE: list[tuple[Exception, StatusCode, str, bool]] = [
    (errors.AuthError("JWT token has expired", cause="expired"), StatusCode.UNAUTHENTICATED, "UNAUTHORIZED", False),
    (errors.InvalidRequest("rule"), StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", False),
    (errors.InvalidDigest("x"), StatusCode.INVALID_ARGUMENT, "INVALID_DIGEST", False),
    (errors.InvalidResourceName("x"), StatusCode.INVALID_ARGUMENT, "INVALID_RESOURCE_NAME", False),
    (errors.DigestMismatch(got=H, want=H), StatusCode.INVALID_ARGUMENT, "DIGEST_MISMATCH", False),
    (errors.OffsetOutOfRange(offset=2, size=1), StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE", False),
    (errors.SizeLimitExceeded(want=2, max_bytes=1), StatusCode.RESOURCE_EXHAUSTED, "SIZE_LIMIT_EXCEEDED", False),
    (errors.PeerGone("x"), StatusCode.CANCELLED, "PEER_GONE", False),
    (errors.PeerTooSlow("x"), StatusCode.DEADLINE_EXCEEDED, "PEER_TOO_SLOW", False),
    (errors.MemoryShort(), StatusCode.UNAVAILABLE, "MEMORY_SHORT", False),
    (errors.ArtifactNotFound(EMPTY_DIGEST), StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND", False),
    (errors.BackendNotFound("X"), StatusCode.NOT_FOUND, "BACKEND_NOT_FOUND", False),
    (errors.BackendRefused("x"), StatusCode.FAILED_PRECONDITION, "BACKEND_REFUSED", True),
    (errors.LookupRefused("x"), StatusCode.FAILED_PRECONDITION, "BACKEND_REFUSED", True),
    (errors.BackendUnavailable("x"), StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE", True),
    (errors.BackendBroken("x"), StatusCode.INTERNAL, "BACKEND_BROKEN", True),
    (errors.StorageFull("x"), StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL", True),
    (errors.ArtifactCorrupt(got=H, want=H), StatusCode.DATA_LOSS, "ARTIFACT_CORRUPT", True),
    (errors.SecretNotFound("x"), StatusCode.FAILED_PRECONDITION, "SECRET_NOT_FOUND", True),
    (errors.SecretDenied("x"), StatusCode.FAILED_PRECONDITION, "SECRET_DENIED", True),
    (errors.SecretMalformed("x"), StatusCode.FAILED_PRECONDITION, "SECRET_MALFORMED", True),
    (errors.SecretUnavailable("x"), StatusCode.UNAVAILABLE, "SECRET_UNAVAILABLE", True),
    (errors.ConfigError("/etc/secret/path"), StatusCode.INTERNAL, "INTERNAL", True),
    (ZeroDivisionError("a bug"), StatusCode.INTERNAL, "INTERNAL", True),
    (ExceptionGroup("several", [ValueError("a bug")]), StatusCode.INTERNAL, "INTERNAL", True),
]


async def translated(error: BaseException) -> RpcError:
    async def fail(call: ServerCall) -> None:
        raise error

    with pytest.raises(RpcError) as caught:
        await error_interceptor()(FakeCall(), fail)
    return caught.value


def info_of(status: RpcError) -> ErrorInfo:
    info = ErrorInfo()
    assert Status.FromString(status.details).details[0].Unpack(info)
    return info


@pytest.mark.parametrize(("error", "code", "reason", "trouble"), TABLE, ids=lambda value: type(value).__name__)
async def test_the_table(error: Exception, code: StatusCode, reason: str, trouble: bool) -> None:
    with structlog.testing.capture_logs() as lines:
        status = await translated(error)
    details, info = Status.FromString(status.details), info_of(status)
    assert (status.code, details.code, details.message) == (code, int(code), status.message)
    assert (info.reason, info.domain) == (reason, "casproxy")
    if not trouble:
        assert lines == []
        assert status.message == str(error)
        return
    (line,) = lines
    assert line["error_id"] == info.metadata["id"]
    assert line["exc_info"] is error
    names_id = code in (StatusCode.INTERNAL, StatusCode.UNAVAILABLE)
    assert (f"(id {info.metadata['id']})" in status.message) == names_id


def test_the_table_is_complete() -> None:
    """A new error must be given a status deliberately."""

    def tree(kind: type[Exception]) -> set[type[Exception]]:
        return {kind}.union(*(tree(below) for below in kind.__subclasses__()))

    ours = {kind for kind in tree(errors.CasproxyError) if kind.__module__ == errors.__name__}
    bases = {
        errors.CasproxyError,
        errors.RequestError,
        errors.PeerError,
        errors.StorageError,
        errors.SecretError,
        errors.AlreadyStored,  # an answer, which ``pipeline.upload`` turns into one
    }
    assert ours - bases == {type(row[0]) for row in TABLE if isinstance(row[0], errors.CasproxyError)}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.SizeLimitExceeded(want=11, max_bytes=10), "max size of upload exceeded: want=11, max=10"),
        (errors.BackendNotFound("Floppy"), 'backend "Floppy" not found'),
        (errors.DigestMismatch(got="a", want="b"), "digest mismatch: got=a, want=b"),
        (errors.ArtifactCorrupt(got="a", want="b"), "checksum mismatch: got=a, want=b"),
        (errors.AuthError("JWT token is missing", cause="missing"), "JWT token is missing"),
    ],
)
async def test_texts_that_clients_match(error: Exception, text: str) -> None:
    assert (await translated(error)).message == text


async def test_the_cause_of_a_refused_token_is_in_the_details() -> None:
    status = await translated(errors.AuthError("JWT token has expired", cause="expired"))
    assert dict(info_of(status).metadata) == {"cause": "expired"}


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("hunter2"), errors.ConfigError("hunter2"), ExceptionGroup("hunter2", [ValueError()])]
)
async def test_an_unexpected_error_is_not_shown(error: Exception) -> None:
    status = await translated(error)
    assert "hunter2" not in status.message
    assert b"hunter2" not in status.details


async def test_a_cause_is_not_shown() -> None:
    error = errors.BackendBroken("the store answered nonsense")
    error.__cause__ = OSError("hunter2")
    status = await translated(error)
    assert b"hunter2" not in status.message.encode() + status.details


@pytest.mark.parametrize(
    "error",
    [RpcError(StatusCode.ABORTED, "as it is"), StreamGone(8), BrokenMessage(StatusCode.INTERNAL, "truncated")],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_call_itself_understands_passes(error: Exception) -> None:
    async def fail(call: ServerCall) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await error_interceptor()(FakeCall(), fail)
    assert caught.value is error


async def test_a_cancellation_passes() -> None:
    async def wait(call: ServerCall) -> None:
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        scope.cancel()
        await error_interceptor()(FakeCall(), wait)
    assert scope.cancelled_caught
