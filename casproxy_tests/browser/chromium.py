"""Owns a headless Chromium and one page in it, driven over the DevTools protocol. Refuses to know what is on the page.

The protocol goes through two pipes (``--remote-debugging-pipe``: JSON messages that end in a zero byte): there is no
port to guess, and nobody else can drive it.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from casproxy_tests.real import require_real

_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--no-proxy-server", "--disable-default-apps", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb"),
    *("--remote-debugging-pipe", "--lang=en-GB"),
]
_SLOWEST_SECONDS = 60
_WAIT = """new Promise((done) => {{
  const look = () => {{ const found = {condition}; if (found) done(Boolean(found)); else setTimeout(look, 20); }};
  look();
}})"""


class Page:
    """One tab. What it logs as an error, and what its policy blocked, is kept in ``complaints``."""

    def __init__(self, receive: trio.abc.ReceiveStream, send: trio.abc.SendStream) -> None:
        self._receive = receive
        self._send = send
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = trio.lowlevel.ParkingLot()
        self._loads = 0
        self._session = ""
        self._last = 0
        self._names: dict[str, str] = {}
        self.complaints: list[str] = []
        self.downloads: dict[str, str] = {}
        """State by suggested name: ``inProgress``, ``completed`` or ``canceled``."""

    async def open(self, url: str) -> None:
        """Go to ``url`` and wait until it has loaded."""
        loads = self._loads
        await self.call("Page.navigate", url=url)
        await self._until(lambda: self._loads > loads)

    async def js(self, expression: str) -> Any:
        """The value of an expression; a promise is awaited."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        with trio.fail_after(_SLOWEST_SECONDS):
            await self.js(_WAIT.format(condition=condition))

    async def wait_for(self, selector: str) -> None:
        """Wait until there is such an element."""
        await self.wait(f"document.querySelector({json.dumps(selector)})")

    async def text(self, selector: str) -> str:
        found = await self.js(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''")
        return str(found).strip()

    async def click(self, selector: str) -> None:
        await self.js(f"document.querySelector({json.dumps(selector)}).click()")

    async def enter(self, selector: str, text: str) -> None:
        """Put ``text`` where a person would and press Enter."""
        await self.js(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.call("Input.insertText", text=text)
        enter = {"key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, **enter)

    async def choose_file(self, selector: str, path: Path) -> None:
        root = await self.call("DOM.getDocument")
        node = await self.call("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(path)])

    async def downloaded(self, name: str) -> str:
        """Wait until the download of this name has ended; how it ended."""
        await self._until(lambda: self.downloads.get(name, "inProgress") != "inProgress")
        return self.downloads[name]

    async def look(self, *, dark: bool, width: int = 860, height: int = 900) -> None:
        """Show the page to somebody who likes it ``dark``, in a window of this size."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme, still])
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        answer = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        await trio.Path(path).write_bytes(base64.b64decode(answer["data"]))

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        self._last = number = self._last + 1
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        await self._send.send_all(json.dumps(message).encode() + b"\0")
        await self._until(lambda: number in self._answers)
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    async def listen(self) -> None:
        """Take in what the browser says, until it has nothing more to say."""
        buffer = bytearray()
        async for data in self._receive:
            buffer += data
            *messages, rest = buffer.split(b"\0")
            buffer = bytearray(rest)
            for message in messages:
                self._take(json.loads(message))
            self._arrived.unpark_all()

    async def attach(self, downloads: Path) -> None:
        """Take over the first tab; it may download into a directory."""
        await self.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads), eventsEnabled=True
        )
        targets = await self.call("Target.getTargets")
        tab = next(target["targetId"] for target in targets["targetInfos"] if target["type"] == "page")
        self._session = (await self.call("Target.attachToTarget", targetId=tab, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            await self.call(f"{domain}.enable")

    def _take(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case None:
                self._answers[message["id"]] = message
            case "Page.loadEventFired":
                self._loads += 1
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.complaints.append(parameters["entry"]["text"])
            case "Browser.downloadWillBegin":
                self._names[parameters["guid"]] = parameters["suggestedFilename"]
            case "Browser.downloadProgress":
                self.downloads[self._names[parameters["guid"]]] = parameters["state"]

    async def _until(self, condition: Any) -> None:
        with trio.fail_after(_SLOWEST_SECONDS):
            while not condition():
                await self._arrived.park()


@asynccontextmanager
async def chromium(directory: Path) -> AsyncIterator[Page]:
    """A page in a new browser with a profile of its own below ``directory``; downloads go to ``downloads`` there."""
    program = require_real("chromium", "the page for people")
    (directory / "downloads").mkdir()
    to_browser, from_us = os.pipe()
    from_browser, to_us = os.pipe()
    # the protocol's descriptors are 3 and 4 by definition
    script = f'exec "$@" 3<&{to_browser} 4>&{to_us}'
    command = ["bash", "-c", script, "chromium", str(program), *_FLAGS, f"--user-data-dir={directory / 'profile'}"]
    environment = os.environ | {"HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    async with trio.lowlevel.FdStream(from_us) as send, trio.lowlevel.FdStream(from_browser) as receive:
        try:
            process = await trio.lowlevel.open_process(
                [*command, "about:blank"],
                pass_fds=(to_browser, to_us),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        finally:
            os.close(to_browser)
            os.close(to_us)
        page = Page(receive, send)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(page.listen)
                await page.attach(directory / "downloads")
                yield page
                page._session = ""
                nursery.start_soon(page.call, "Browser.close")
                await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            if process.returncode is None:
                process.kill()
                with trio.move_on_after(10, shield=True):
                    await process.wait()
