"""The stored form is, byte for byte, what Chainloop writes; what others write is judged, never trusted."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.digest import Digest
from casproxy.storage import stored_form
from casproxy.storage.api import Resource
from casproxy.storage.stored_form import NotOurs, describe_artifact, parse_index, parse_manifest
from casproxy_tests import vectors

GOLDEN: list[dict[str, Any]] = vectors.load("oci_stored_form")
RESOURCE = Resource(Digest.of(b"hello"), "hello.txt", 5)


@pytest.mark.parametrize("golden", GOLDEN, ids=[golden["file_name"] for golden in GOLDEN])
def test_golden_documents(golden: dict[str, Any]) -> None:
    content = base64.b64decode(golden["content_base64"])
    resource = Resource(Digest(golden["digest"]), golden["file_name"], len(content))
    form = describe_artifact(resource, content)
    assert form.config.data.decode() == golden["config"]
    assert form.manifest.data.decode() == golden["manifest"]
    assert parse_manifest(golden["manifest"].encode(), resource.digest) == resource


def test_index_names_the_manifest_as_latest() -> None:
    form = describe_artifact(RESOURCE, b"hello")
    assert parse_index(form.index) == (form.manifest.digest, len(form.manifest.data))
    assert json.loads(form.index)["manifests"][0]["annotations"] == {"org.opencontainers.image.ref.name": "latest"}


def test_go_escapes_separators_too() -> None:
    form = describe_artifact(Resource(RESOURCE.digest, "a\u2028b\u2029c\x7f", 5), b"hello")
    assert b"a\\u2028b\\u2029c\x7f" in form.manifest.data


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60))
def test_every_file_name_comes_back(name: str) -> None:
    resource = Resource(RESOURCE.digest, name, 5)
    assert parse_manifest(describe_artifact(resource, b"hello").manifest.data, resource.digest) == resource


def changed(**changes: Any) -> bytes:
    return json.dumps(json.loads(describe_artifact(RESOURCE, b"hello").manifest.data) | changes).encode()


LAYER = {"mediaType": "text/plain", "size": 5, "digest": str(RESOURCE.digest)}


@pytest.mark.parametrize(
    "manifest",
    [
        changed(annotations={"org.opencontainers.image.authors": "somebody"}),
        changed(annotations=None),
        changed(annotations=[]),
        changed(layers=[]),
        changed(layers=None),
        changed(layers=["x"]),
        changed(layers=[LAYER, LAYER]),
        changed(layers=[LAYER | {"digest": str(Digest.of(b"other"))}]),
        changed(layers=[LAYER | {"size": -1}]),
        changed(layers=[LAYER | {"size": True}]),
        changed(layers=[LAYER | {"size": "5"}]),
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"a":"' + b" " * stored_form.MAX_DOCUMENT_BYTES + b'"}',
    ],
    ids=range(17),
)
def test_not_ours(manifest: bytes) -> None:
    with pytest.raises(NotOurs):
        parse_manifest(manifest, RESOURCE.digest)


@pytest.mark.parametrize("title", [None, "", 7, "a\nb", "\x9b", "x" * 1025, "\ud800"])
def test_an_unusable_title_gives_way_to_the_digest(title: object) -> None:
    annotations = {"org.opencontainers.image.authors": "chainloop.dev", "org.opencontainers.image.title": title}
    assert parse_manifest(changed(annotations=annotations), RESOURCE.digest).file_name == RESOURCE.digest.hex


ENTRY = {"digest": str(RESOURCE.digest), "size": 5}
TAGGED = {"digest": str(Digest.of(b"t")), "size": 6, "annotations": {"org.opencontainers.image.ref.name": "latest"}}


@pytest.mark.parametrize(
    ("manifests", "want"),
    [
        ([ENTRY], (RESOURCE.digest, 5)),
        ([ENTRY, TAGGED], (Digest.of(b"t"), 6)),
        ([ENTRY, ENTRY], None),
        ([TAGGED, TAGGED], None),
        ([], None),
        ("x", None),
        (["x"], None),
        ([{"digest": "sha512:00", "size": 1}], None),
        ([{"digest": "sha256:xyz", "size": 1}], None),
        ([{"digest": str(RESOURCE.digest)}], None),
        ([{"size": 1}], None),
    ],
)
def test_index_of_others(manifests: object, want: object) -> None:
    index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    if want is None:
        with pytest.raises(NotOurs):
            parse_index(index)
    else:
        assert parse_index(index) == want


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["layers", "annotations", "digest", "size", "manifests"]), inner, max_size=3
            )
        ),
    )
)
def test_hostile_json_raises_only_not_ours(value: object) -> None:
    data = json.dumps(value).encode()
    with pytest.raises(NotOurs):
        parse_manifest(data, RESOURCE.digest)
    with pytest.raises(NotOurs):
        parse_index(data)
