"""Audit events are bit-equal to those of the original service."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from casproxy.digest import Digest
from casproxy.observe.audit_event import AuditEvent, NotAuditable, audit_event, event_data, go_json
from casproxy.observe.facts import Caller, Downloaded, Fact, Uploaded
from casproxy_tests.vectors import load

DIGEST = Digest("b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9")
CALLER = Caller("1089bb36-e27b-428b-8009-d015c8737c54", "uploader", "OCI")
NAME = "sbom.cyclonedx.json"
VECTORS: dict[str, Fact] = {
    "audit_casartifact_uploaded": Uploaded(DIGEST, 1024, NAME, skipped=False),
    "audit_casartifact_upload_skipped": Uploaded(DIGEST, 1024, NAME, skipped=True),
    "audit_casartifact_upload_skipped_unknown_size": Uploaded(DIGEST, 0, "", skipped=True),
    "audit_casartifact_downloaded": Downloaded(DIGEST, 1024, NAME),
}


def event(fact: Fact, caller: Caller = CALLER, now_ns: int = 0) -> AuditEvent:
    return audit_event(caller, fact, now_ns=now_ns)


@pytest.mark.parametrize("name", VECTORS)
def test_the_data_is_the_originals_in_the_same_order(name: str) -> None:
    want = load(name)
    assert go_json(event_data(CALLER, VECTORS[name])) == go_json(want)
    assert json.loads(event(VECTORS[name]).payload)["Data"] == want


def test_what_is_around_it() -> None:
    sent = event(VECTORS["audit_casartifact_downloaded"], now_ns=1_767_225_599_120_000_000)
    assert sent.subject == "audit.casartifact.casartifactdownloaded"
    start = b'{"EventType":"AUDIT_EVENT","Timestamp":"2025-12-31T23:59:59.12Z","Data":{"ActionType":"CASArtifactDownl'
    assert sent.payload.startswith(start)
    assert event(VECTORS["audit_casartifact_uploaded"]).subject == "audit.casartifact.casartifactuploaded"


@pytest.mark.parametrize(
    ("nanoseconds", "fraction"),
    [(0, ""), (1, ".000000001"), (120_000_000, ".12"), (999_999_999, ".999999999"), (10, ".00000001")],
)
def test_the_timestamp_is_gos_rfc_3339_with_nanoseconds(nanoseconds: int, fraction: str) -> None:
    payload = json.loads(event(VECTORS["audit_casartifact_downloaded"], now_ns=nanoseconds).payload)
    assert payload["Timestamp"] == f"1970-01-01T00:00:00{fraction}Z"


def test_names_are_escaped_as_gos_encoder_does() -> None:
    name = '<a>&\u2028\u2029 "b" \\ señal-日本語-🚀'
    sent = event(Uploaded(DIGEST, 1, name, skipped=False)).payload.decode()
    assert '"file_name":"\\u003ca\\u003e\\u0026\\u2028\\u2029 \\"b\\" \\\\ señal-日本語-🚀"' in sent


def without_controls() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cc", "Cs"]))


@hypothesis.given(name=without_controls(), size=st.integers(0, 2**63 - 1), skipped=st.booleans())
def test_any_name_reads_back_and_its_digest_is_that_of_the_bytes_sent(name: str, size: int, skipped: bool) -> None:
    sent = event(Uploaded(DIGEST, size, name, skipped=skipped)).payload
    data: dict[str, Any] = json.loads(sent)["Data"]
    assert data["Info"].get("file_name", "") == name
    assert not {*"<>&\u2028\u2029"} & {*sent.decode()}
    keys = ("ActionType", "TargetType", "TargetID", "Info", "OrgID", "UserID")
    hashed = go_json({key: data.get(key) for key in keys})
    assert data["Digest"] == f"sha256:{hashlib.sha256(hashed).hexdigest()}"


@pytest.mark.parametrize("org", ["", "my-org", "1089bb36-e27b-428b-8009-d015c8737c5", "g" * 32])
def test_an_organisation_that_is_no_uuid_is_not_told(org: str) -> None:
    with pytest.raises(NotAuditable, match="UUID"):
        event(VECTORS["audit_casartifact_downloaded"], Caller(org, "uploader", "OCI"))


def test_each_event_has_an_id_of_its_own() -> None:
    fact = VECTORS["audit_casartifact_downloaded"]
    assert event(fact).id != event(fact).id
