"""Owns how layers lie over each other: files in name order, then variables. Refuses to know what a setting means.

Maps merge key by key; lists and single values replace. A variable with a dotted name, ``CAS_server.grpc.addr``, lies on
top of every file; one without a dot (``CAS_VAULT_TOKEN``) is only there for placeholders (``interpolate.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from casproxy.config.files import Node, Scalar, Table, snake_case

PREFIX = "CAS_"


def merge(layers: Iterable[Table]) -> Table:
    """One new tree; a later layer wins. The layers stay as they are."""
    merged = Table("")
    for layer in layers:
        _lay_over(merged, layer)
    return merged


def _lay_over(below: Table, above: Table) -> None:
    for key, node in above.entries.items():
        current = below.entries.get(key)
        if isinstance(node, Table):
            table = current if isinstance(current, Table) else Table(node.origin)
            _lay_over(table, node)
            node = table
        below.entries[key], below.spelled[key] = node, above.spelled[key]


def dotted_variables(environ: Mapping[str, str]) -> Iterable[Table]:
    """A layer per dotted ``CAS_`` variable, in name order."""
    for name in sorted(environ):
        path = name.removeprefix(PREFIX).split(".")
        if name.startswith(PREFIX) and len(path) > 1 and all(path):
            yield _layer(path, Scalar(environ[name], f"variable {name}", literal=True))


def _layer(path: list[str], value: Node) -> Table:
    for key in reversed(path):
        value = Table(value.origin, {snake_case(key): value}, {snake_case(key): key})
    assert isinstance(value, Table)  # noqa: S101 - path is never empty
    return value
