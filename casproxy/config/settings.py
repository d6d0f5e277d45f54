"""Owns the view of the model that loader, renderer and reference share: the settings of a section, described.

Refuses to know files. Made from the model's annotations once per section.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from casproxy.config.kinds import Kind
from casproxy.config.model import Config
from casproxy.config.section import PLANNED, Section


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: either a value of some ``kind`` or a ``section`` of further keys."""

    name: str
    kind: Kind | None
    section: type[Section] | None
    required: bool
    default: Any
    meaning: str
    since: str
    unit: str
    when_unset: str
    alias_of: str

    @property
    def planned(self) -> bool:
        """Nothing reads it in this version."""
        return self.since == PLANNED


@cache
def settings_of(section: type[Section]) -> tuple[Setting, ...]:
    """The keys of a section, in the model's order."""
    described = inspect.type_info(section)
    assert isinstance(described, inspect.StructType)  # noqa: S101 - a Section is a Struct
    return tuple(_setting(field) for field in described.fields)


def walk(section: type[Section] = Config, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Setting]]:
    """Every key below ``section`` as (dotted path, setting), sections before what is in them."""
    for setting in settings_of(section):
        below = (*path, setting.name)
        yield ".".join(below), setting
        if setting.section is not None:
            yield from walk(setting.section, below)


def _setting(field: inspect.Field) -> Setting:
    extra: dict[str, Any] = {}
    meaning, section = "", None
    for part in _parts(field.type):
        if isinstance(part, inspect.Metadata):
            extra |= part.extra or {}
            meaning = (part.extra_json_schema or {}).get("description", meaning)
        elif isinstance(part, inspect.StructType) and issubclass(part.cls, Section):
            section = part.cls
    return Setting(
        name=field.name,
        kind=extra.get("kind"),
        section=section,
        required=field.required,
        default=field.default_factory() if field.default is msgspec.NODEFAULT and not field.required else field.default,
        meaning=meaning,
        since=extra["since"],
        unit=extra["unit"] or (extra["kind"].unit if "kind" in extra else ""),
        when_unset=extra["when_unset"],
        alias_of=extra["alias_of"],
    )


def _parts(described: inspect.Type) -> Iterator[inspect.Type]:
    """A type and everything annotated or optional inside it."""
    yield described
    if isinstance(described, inspect.Metadata):
        yield from _parts(described.type)
    elif isinstance(described, inspect.UnionType):
        for member in described.types:
            yield from _parts(member)
