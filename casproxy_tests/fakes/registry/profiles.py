"""How real registries differ from the reference one. Each knob was observed at the registry that carries its name.

Sources: the distribution specification 1.1 (what is allowed) and the issue trackers of the registries and of
go-containerregistry, oras and skopeo (what is done).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Profile:
    """The reference registry, unless said otherwise. Sizes in bytes."""

    name: str = "reference"
    streaming_patch: bool = True
    """Takes a PATCH without Content-Range."""
    ranged_patch: bool = True
    max_ranged_patch: int | None = None
    patch_needs_length: bool = False
    monolithic_put: bool = True
    max_monolithic_put: int | None = None
    signs_offset: bool = True
    """A Location is good for the offset at which it was given; docker-registry 2.8 refuses even DELETE otherwise."""
    sticky_range: bool = False
    """The ``Range`` it answers stays at the first chunk's."""
    min_chunk: int = 0
    """Announced as ``OCI-Chunk-Min-Length``; shorter chunks but the last are refused."""
    manifest_needs_length: bool = False
    cookies: bool = False
    """Sets a cookie and refuses whoever brings it back."""
    config_types: Sequence[str] = ()
    """The only config media types it takes; empty: any."""
    rate_limited: int = 0
    """So many requests are answered 429 with a body of one newline first."""
    unknown_repository: int = 404
    """What a manifest of a repository that does not exist yet is answered."""
    refuses_empty_layer: bool = False
    absolute_location: bool = False


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("GHCR", max_ranged_patch=4 * MIB, unknown_repository=403, absolute_location=True),
        Profile("ACR", max_monolithic_put=20 * MIB, patch_needs_length=True),
        Profile("ECR", sticky_range=True, absolute_location=True),
        Profile("GAR", ranged_patch=False),
        Profile("JFrog", monolithic_put=False, unknown_repository=401),
        Profile("Nexus", manifest_needs_length=True),
        Profile("Harbor", cookies=True),
        Profile("GitLab", config_types=("application/vnd.oci.image.config.v1+json",)),
        Profile("Docker Hub", rate_limited=2, absolute_location=True),
    )
}


def without_streaming(profile: Profile) -> Profile:
    """The same registry behind a gateway that refuses a PATCH without Content-Range."""
    return replace(profile, name=f"{profile.name}, no streaming", streaming_patch=False)
