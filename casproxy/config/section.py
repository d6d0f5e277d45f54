"""Owns what every part of the model is made of: a section, and what the reference says of a setting in it."""

from __future__ import annotations

import msgspec

PLANNED = "planned"


def doc(
    meaning: str, *, since: str = "0.1.0", unit: str = "", when_unset: str = "", alias_of: str = ""
) -> msgspec.Meta:
    """What the reference says of a setting. ``when_unset`` describes a default that is worked out at start.

    ``unit`` says what a number counts, where its kind does not say so already (times and sizes do).
    ``alias_of`` is the key (in the same section) that a deprecated name stands for.
    """
    extra = {"since": since, "unit": unit, "when_unset": when_unset, "alias_of": alias_of}
    return msgspec.Meta(description=meaning, extra=extra)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the configuration: a YAML map."""
