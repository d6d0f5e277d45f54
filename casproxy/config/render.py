"""Owns how a configuration is shown: YAML that could be loaded again, but for its secrets. Refuses to show one."""

from __future__ import annotations

import re
from typing import Any

import yaml

from casproxy.config.kinds import HIDDEN
from casproxy.config.model import Config
from casproxy.config.section import Section
from casproxy.config.settings import Setting, settings_of

_URL_PASSWORD = re.compile(r"(?<=://)[^/?#]*@")


def to_yaml(config: Config) -> str:
    """The effective configuration: every setting that has a value, defaults included, secrets as ``******``."""
    text: str = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True, width=120)
    return text


def to_plain(section: Section) -> dict[str, Any]:
    """A section as plain values, written as a configuration file would write them."""
    plain = {}
    for setting in settings_of(type(section)):
        value = getattr(section, setting.name)
        if isinstance(value, Section):
            plain[setting.name] = to_plain(value)
        elif value is not None:
            plain[setting.name] = shown(setting, value)
    return plain


def shown(setting: Setting, value: Any) -> Any:
    """One value as a configuration file would write it, without secrets."""
    kind = setting.kind
    assert kind is not None  # noqa: S101 - a setting without a kind is a section
    if kind.secret:
        return HIDDEN
    if kind.many:
        return [_without_password(kind.show(item)) for item in value]
    return _without_password(kind.show(value))


def _without_password(value: Any) -> Any:
    """``nats://user:password@host`` as ``nats://******@host``."""
    return _URL_PASSWORD.sub(f"{HIDDEN}@", value) if isinstance(value, str) else value
