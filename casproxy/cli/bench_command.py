"""Owns ``casproxy bench``: flags in, figures out. Refuses to know how they are measured (``bench``)."""

from __future__ import annotations

import argparse
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from casproxy.cli.parser import UsageError, add_output_flag
from casproxy.cli.tls_flags import add_tls_flags, find_tls
from casproxy.units import parse_duration, parse_size

if TYPE_CHECKING:
    from casproxy.bench.load import Load, Target
    from casproxy.cli.bench_screen import Screen

SCENARIOS = ("upload", "download", "mixed", "dedup", "describe", "cancel", "slow")
_BY_DEFAULT = ("upload", "download", "dedup", "describe")
_SMALL = ("dedup", "describe")
_SMALL_SIZE = 4096  # bytes: what is measured there is the call


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "bench",
        help="measure a server, this one or any other",
        description="Measure a ByteStream server: throughput, latency, and for a server on this machine its CPU and "
        "memory. Without --addr a server is started on the loopback, measured for about a minute and ended. Every "
        "byte that is downloaded is checked; the exit code is 1 if one was wrong or a call failed.",
        epilog="Scenarios: upload, download, mixed, dedup (send what is stored), describe, cancel (reset uploads in "
        f"mid-stream), slow (live uploads beside stalled ones). Default: {', '.join(_BY_DEFAULT)}.",
    )
    parser.add_argument("scenarios", metavar="SCENARIO", nargs="*", help="what to measure, in this order")
    _add_target_flags(parser)
    _add_load_flags(parser)
    add_output_flag(parser)
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw the results; .svg, or .png with casproxy[bench]"
    )
    parser.set_defaults(run=_run)


def _add_target_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--addr", metavar="HOST:PORT", help="measure the server at this gRPC address")
    for role in ("uploader", "downloader"):
        parser.add_argument(f"--{role}-token", metavar="TOKEN", help=f"the {role}'s token for --addr; or as a file:")
        parser.add_argument(f"--{role}-token-file", metavar="FILE", type=Path, help=f"a file with the {role}'s token")
    add_tls_flags(parser)
    parser.add_argument("--pid", metavar="PID", type=int, default=0, help="the process behind --addr, to read its CPU")
    parser.add_argument(
        "--peer", metavar="NAME=HOST:PORT", action="append", default=[], help="measure this server in turn; repeatable"
    )
    parser.add_argument(
        "--backend", choices=("fs", "memory", "oci"), default="fs", help="store of the server that is started"
    )
    parser.add_argument(
        "--oci-repo", metavar="HOST:PORT/PREFIX", default="", help="for --backend oci: where, over http"
    )


def _add_load_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", metavar="SIZE", type=_size, help="of each artifact; default: 16MiB, or 4KiB for calls"
    )
    parser.add_argument("--concurrency", metavar="N", type=_count, default=8, help="streams at once (default: 8)")
    parser.add_argument("--connections", metavar="N", type=_count, default=1, help="spread over these (default: 1)")
    parser.add_argument(
        "--stalled", metavar="N", type=_count, default=100, help="stalled streams of slow (default: 100)"
    )
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--duration", metavar="TIME", type=_time, default=5.0, help="of each sample (default: 5s)")
    ends.add_argument("--count", metavar="N", type=_count, help="operations of each sample, instead")
    parser.add_argument("--rounds", metavar="N", type=_count, default=3, help="samples of each kind (default: 3)")
    parser.add_argument("--client", choices=("native", "grpcio"), default="native", help="who calls (default: native)")
    parser.add_argument(
        "--resource-names", choices=("gob", "reapi", "plain"), default="gob", help="how artifacts are named"
    )


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, for example 16MiB") from error


def _time(text: str) -> float:
    try:
        return max(0.1, parse_duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, for example 5s") from error


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    from casproxy.bench.plot import check_name
    from casproxy.cli.bench_screen import Screen
    from casproxy.cli.session import run

    wrong = [name for name in args.scenarios if name not in SCENARIOS]
    if wrong:
        raise UsageError(f"unknown scenario {wrong[0]!r}: choose from {', '.join(SCENARIOS)}")
    if args.backend == "oci" and not (args.oci_repo or args.addr):
        raise UsageError("--backend oci needs a registry: give --oci-repo HOST:PORT/PREFIX")
    if args.plot is not None:
        check_name(args.plot)
    screen = Screen(args.output, args.plot)
    try:
        run(lambda: _measure(args, screen))
    finally:
        screen.finish()  # also after Ctrl-C: what was measured so far
    return 1 if screen.failed else 0


async def _measure(args: argparse.Namespace, screen: Screen) -> None:
    from casproxy.bench.campaign import Campaign

    async with _targets(args) as targets:
        campaigns = [Campaign(_load(args, name), targets, args.rounds) for name in args.scenarios or _BY_DEFAULT]
        with screen.showing(campaigns):
            for campaign in campaigns:
                await campaign.run(screen.on_sample)


def _load(args: argparse.Namespace, scenario: str) -> Load:
    from casproxy.bench.load import ClientKind, Load, NameForm, Scenario

    return Load(
        scenario=Scenario(scenario),
        size=args.size if args.size is not None else _SMALL_SIZE if scenario in _SMALL else 16 << 20,
        concurrency=args.concurrency,
        connections=args.connections,
        duration=args.duration,
        count=args.count if args.count is not None else math.inf,
        client=ClientKind(args.client),
        names=NameForm(args.resource_names),
        stalled=args.stalled,
    )


@asynccontextmanager
async def _targets(args: argparse.Namespace) -> AsyncIterator[Sequence[Target]]:
    from casproxy.bench.local import running_server

    if args.addr is not None:
        target = _remote(args)
        yield [target, *_peers(args, target)]
        return
    async with running_server(*(["--oci-repo", args.oci_repo] if args.oci_repo else [])) as server:
        target = server.target(args.backend.upper())
        yield [target, *_peers(args, target)]


def _remote(args: argparse.Namespace) -> Target:
    import os

    from casproxy.bench.load import Target
    from casproxy.cli.connection import TOKEN_VARIABLE
    from casproxy.client.address import Address
    from casproxy.client.tls import TlsFiles

    both = os.environ.get(TOKEN_VARIABLE, "").strip()
    files = find_tls(args, os.environ)
    return Target(
        name="server",
        address=Address.parse(args.addr),
        uploader_token=_token(args.uploader_token, args.uploader_token_file) or both,
        downloader_token=_token(args.downloader_token, args.downloader_token_file) or both,
        tls=None if files is None else files.context(),
        tls_files=files or TlsFiles(),
        process_id=args.pid,
    )


def _token(text: str | None, file: Path | None) -> str:
    return text.strip() if text is not None else file.read_text("utf-8").strip() if file is not None else ""


def _peers(args: argparse.Namespace, like: Target) -> list[Target]:
    """The peers, called with the tokens and the transport of the first target."""
    from dataclasses import replace

    from casproxy.client.address import Address

    peers = []
    for text in args.peer:
        name, separator, addr = text.partition("=")
        if not name or not separator or name == like.name:
            raise UsageError(f"--peer {text!r}: want NAME=HOST:PORT, with a name of its own")
        peers.append(replace(like, name=name, address=Address.parse(addr), process_id=0, control=None))
    return peers
