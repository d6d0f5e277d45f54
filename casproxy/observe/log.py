"""Owns how a log line looks and where it goes. Refuses to know what is worth logging.

Everything ends on one stream: structlog's own events, the standard library's ``logging``, and through it Hypercorn
and the SDKs. JSON in production, colour on a terminal. Two promises hold for every line, whoever wrote it:

* whatever looks like a token, and the query of every URL, is cut out (``redact``);
* control characters are escaped, so that a hostile name cannot write lines of its own (``escape``).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Protocol, TextIO, TypeAlias, cast

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from casproxy.observe.lines import LinesOfATurn
from casproxy.observe.terminal import is_watched

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SECRET_KEYS = re.compile(
    r"token|authorization|password|passwd|credential|api_?key|secret(?!_id)|private", re.IGNORECASE
)
_TOKEN = re.compile(r"\beyJ[\w-]*\.[\w-]*(?:\.[\w-]*)?|\bbearer\s+[^\s'\"]+", re.IGNORECASE)
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s'\"?#]*|/[\w:./%-]*)\?[^\s'\"]+", re.IGNORECASE)
_CHATTY = (
    *("httpx", "httpcore", "hpack", "h2", "urllib3", "hypercorn.error"),
    *(
        "botocore",
        "boto3",
        "google",
        "azure",
        "msal",
        "sentry_sdk",
        "opentelemetry",
    ),  # at DEBUG the first three log whole answers, secrets included
)


ErrorReporter: TypeAlias = Callable[[BaseException, Mapping[str, Any]], None]
"""Told of the exception on a line of severity error, and the line itself; never waits."""

_reporters: Final[list[ErrorReporter]] = []


@contextmanager
def reporting_errors(reporter: ErrorReporter) -> Iterator[None]:
    """Within the block ``reporter`` is told of every exception that is logged as an error, whoever logs it."""
    _reporters.append(reporter)
    try:
        yield
    finally:
        _reporters.remove(reporter)


class PlainLogger(Protocol):
    """What is asked of a logger of lines without arguments and exceptions."""

    def debug(self, event: str, **facts: Any) -> object:
        """A line that is of interest when something is being looked for."""

    def info(self, event: str, **facts: Any) -> object:
        """A line of everyday."""

    def warning(self, event: str, **facts: Any) -> object:
        """A line that somebody should read."""


class KeptLogger:
    """A logger for a line that every call writes: ``now`` is made by ``configure``, and not for each line (7 us)."""

    def __init__(self, name: str) -> None:
        self._lazy: FilteringBoundLogger = structlog.get_logger(name)
        self.now: PlainLogger = self._lazy.bind()
        _kept.add(self)

    def renew(self, now: PlainLogger | None) -> None:
        """Logging was configured. ``now``: a shorter way to the same lines, if there is one."""
        self.now = now if now is not None else self._lazy.bind()


_kept: Final[weakref.WeakSet[KeptLogger]] = weakref.WeakSet()


class _JsonLines:
    """The bytes that structlog's chain writes for lines without arguments and exceptions, in half of the time."""

    def __init__(self, out: TextIO, threshold: int) -> None:
        self._out = out
        self._threshold = threshold

    def debug(self, event: str, **facts: Any) -> None:
        """See ``PlainLogger``."""
        if self._threshold <= logging.DEBUG:
            self._write("debug", event, facts)

    def info(self, event: str, **facts: Any) -> None:
        """See ``PlainLogger``."""
        if self._threshold <= logging.INFO:
            self._write("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """See ``PlainLogger``."""
        if self._threshold <= logging.WARNING:
            self._write("warning", event, facts)

    def _write(self, level: str, event: str, facts: dict[str, Any]) -> None:
        line = {**facts, "event": event}
        line = line | structlog.contextvars.get_contextvars() | line  # what is said here overrules what is bound
        line["level"] = level
        line["time"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._out.write(_to_json(redact(None, level, line), repr) + "\n")
        self._out.flush()


def configure(level: str = "info", log_format: str = "auto", stream: TextIO | None = None) -> None:
    """Send every log line of this process to ``stream`` (standard error) from ``level`` up.

    ``level``: debug, info, warning or error. ``log_format``: json, console (text), or auto: coloured text on a terminal
    and JSON elsewhere. May be called again; the last call wins.
    """
    out = stream if stream is not None else sys.stderr
    if stream is None and _is_json(log_format, out):
        out = cast(TextIO, LinesOfATurn(out))
    threshold = _LEVELS[level.lower()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _tell_reporters,
        structlog.processors.format_exc_info,
        redact,
    ]
    renderers = _renderers(log_format, out)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    for logger in _kept:
        logger.renew(_JsonLines(out, threshold) if _is_json(log_format, out) else None)
    _route_standard_library(out, threshold, shared, renderers)


def _renderers(log_format: str, out: TextIO) -> list[Processor]:
    if _is_json(log_format, out):
        return [structlog.processors.JSONRenderer(_to_json)]
    return [escape, structlog.dev.ConsoleRenderer(colors=is_watched(out), timestamp_key="time")]


def _is_json(log_format: str, out: TextIO) -> bool:
    return log_format == "json" or (log_format == "auto" and not out.isatty())


_encode: Final = msgspec.json.Encoder().encode
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


def _to_json(event: Mapping[str, Any], default: Callable[[Any], Any]) -> str:
    """One line. msgspec writes what is plain, in a sixth of the time; of other objects it would show their insides."""
    if _PLAIN.issuperset(map(type, event.values())):
        try:
            return _encode(event).decode()
        except (ValueError, OverflowError):
            pass  # half of a surrogate pair, or a number of more than 64 bits
    return json.dumps(event, default=default, ensure_ascii=False)


def _route_standard_library(out: TextIO, threshold: int, shared: list[Processor], renderers: list[Processor]) -> None:
    handler = logging.StreamHandler(out)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    named: list[Processor] = [structlog.stdlib.add_logger_name, *shared]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=named, processors=[remove_meta, *renderers])
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name in _CHATTY:  # they report every request, some with its URL: only their warnings are ours to show
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(True)


def _tell_reporters(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _reporters and event.get("level") in ("error", "critical"):
        error = _exception(event.get("exc_info"))
        if error is not None:
            for reporter in _reporters:
                reporter(error, event)
    return event


def _exception(exc_info: object) -> BaseException | None:
    """The exception in any of the forms that ``logging`` and structlog take."""
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    elif exc_info is True:
        exc_info = sys.exc_info()[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: hide values under telling keys, and tokens and URL queries in every text."""
    for key in _telling(tuple(event)):
        event[key] = "[hidden]"
    if _may_tell("\n".join([value for value in event.values() if isinstance(value, str)])):
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = clean(value)
    return event


@lru_cache(maxsize=1024)
def _telling(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Those whose values are not for a log. The same few sets of keys are logged over and over."""
    return tuple(filter(_SECRET_KEYS.search, keys))


def _may_tell(text: str) -> bool:
    """False when ``clean`` would find nothing: each match has one of these in it, and they are fast to find."""
    if "?" in text:
        return True
    lowered = text.lower()
    return "eyj" in lowered or "bearer" in lowered


def clean(text: str) -> str:
    """``text`` without bearer tokens, JWTs and URL queries."""
    return _TOKEN.sub("[hidden]", _QUERY.sub(r"\1?[hidden]", text))


def escape(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor for text output: what is not printable is shown as its escape."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(map(_printable, lines))
    return event


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
