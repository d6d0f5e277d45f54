"""``observe.lines``: every line is written, in order and once; those of one turn of the event loop together."""

from __future__ import annotations

import io
import logging
import select
import threading

import pytest
import structlog
import trio

from casproxy.observe import log
from casproxy.observe.lines import MOST_KEPT, LinesOfATurn


class Out(io.StringIO):
    """Counts the writes that reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def say(lines: LinesOfATurn, text: str) -> None:
    lines.write(text)
    lines.flush()


async def test_the_lines_of_a_turn_are_one_write() -> None:
    out = Out()
    lines = LinesOfATurn(out)
    for number in range(10):
        say(lines, f"{number}\n")
    assert out.writes == 0
    await trio.lowlevel.checkpoint()
    assert (out.getvalue(), out.writes) == ("".join(f"{number}\n" for number in range(10)), 1)
    say(lines, "next\n")
    await trio.lowlevel.checkpoint()
    assert out.writes == 2


async def test_no_write_is_larger_than_a_pipe_takes_whole() -> None:
    """Workers write to one pipe: what is larger may end up between halves of another's line."""
    written: list[str] = []

    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    lines = LinesOfATurn(Pipe())
    said = [f"{number} {'é' * 300}\n" for number in range(50)]
    for line in said:
        say(lines, line)
    await trio.lowlevel.checkpoint()
    assert "".join(written) == "".join(said)
    assert max(len(some.encode()) for some in written) <= select.PIPE_BUF
    assert all(some.endswith("\n") for some in written)
    assert len(written) < 15


async def test_a_turn_with_very_many_lines_does_not_keep_them_all() -> None:
    out = Out()
    lines = LinesOfATurn(out)
    for _ in range(3 * MOST_KEPT):
        say(lines, "x\n")
    assert out.getvalue().count("\n") >= 2 * MOST_KEPT
    await trio.lowlevel.checkpoint()
    assert out.getvalue().count("\n") == 3 * MOST_KEPT


def test_outside_of_a_run_a_line_is_written_at_once() -> None:
    out = Out()
    say(LinesOfATurn(out), "x\n")
    assert out.getvalue() == "x\n"


async def test_in_another_thread_a_line_is_written_at_once_behind_those_before_it() -> None:
    out = Out()
    lines = LinesOfATurn(out)
    say(lines, "before\n")
    thread = threading.Thread(target=say, args=(lines, "there\n"))
    thread.start()
    thread.join()
    assert out.getvalue() == "before\nthere\n"
    say(lines, "after\n")
    await trio.lowlevel.checkpoint()
    assert out.getvalue() == "before\nthere\nafter\n"


def test_what_the_last_turn_said_is_written_however_the_run_ends() -> None:
    out = Out()
    lines = LinesOfATurn(out)

    async def fail() -> None:
        say(lines, "last words\n")
        raise ValueError("over")

    with pytest.raises(ValueError, match="over"):
        trio.run(fail)
    assert out.getvalue() == "last words\n"
    say(lines, "behind it\n")
    assert out.getvalue() == "last words\nbehind it\n"


async def test_a_reader_that_left_ends_nothing() -> None:
    out = Out()
    lines = LinesOfATurn(out)
    say(lines, "lost\n")
    out.close()
    await trio.lowlevel.checkpoint()
    say(lines, "lost\n")
    await trio.lowlevel.checkpoint()


@pytest.mark.usefixtures("log_lines")  # puts things back
async def test_everybody_who_logs_shares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which things were said, whoever said them."""
    out = Out()
    monkeypatch.setattr("sys.stderr", out)
    kept = log.KeptLogger("kept")
    log.configure("info", "json")
    structlog.get_logger("a").info("first")
    logging.getLogger("b").info("second")
    kept.now.info("third")
    structlog.get_logger("a").info("fourth")
    assert out.writes == 0
    await trio.lowlevel.checkpoint()
    said = out.getvalue().splitlines()
    assert [word for line in said for word in ("first", "second", "third", "fourth") if word in line] == [
        "first",
        "second",
        "third",
        "fourth",
    ]
