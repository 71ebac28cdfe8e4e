"""Debian's Chromium without a window, driven over the DevTools protocol.

::

    with Browser(folder) as page:
        page.open("http://127.0.0.1:8080/")
        page.wait("document.title == 'Ask BERT'")
"""

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

SECONDS = 30.0  # for anything to happen: starting Chromium on a busy machine is the slowest


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    def __init__(self, folder: Path, width: int = 1100, height: int = 900):
        self.folder, self.size = folder, f"{width},{height}"
        self.stack = ExitStack()
        self.console: list[str] = []  # errors and messages of the page

    def __enter__(self):
        from websockets.sync.client import connect

        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        flags += ["--remote-debugging-port=0", f"--user-data-dir={self.folder}", f"--window-size={self.size}"]
        self.process = subprocess.Popen(
            [str(chromium()), *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            port = self._port()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=SECONDS) as reply:
                target = next(each for each in json.load(reply) if each["type"] == "page")
            self.socket = self.stack.enter_context(connect(target["webSocketDebuggerUrl"], max_size=None))
        except BaseException:
            self.process.kill()
            raise
        self.numbers = itertools.count(1)
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error):
        self.stack.close()
        self.process.terminate()
        self.process.wait(SECONDS)

    def _port(self) -> int:
        file = self.folder / "DevToolsActivePort"
        end = time.monotonic() + SECONDS
        while not (file.exists() and file.read_text().strip()):
            assert time.monotonic() < end and self.process.poll() is None, "Chromium did not start"
            time.sleep(0.05)
        return int(file.read_text().split()[0])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(SECONDS))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.console.append(json.dumps(message["params"]))

    def run(self, expression: str) -> Any:
        """Evaluate an expression in the page; a promise is awaited."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, expression: str) -> Any:
        end = time.monotonic() + SECONDS
        while not (value := self.run(expression)):
            assert time.monotonic() < end, f"not true in time: {expression}"
            time.sleep(0.05)
        return value

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState == 'complete'")

    def press(self, key: str, modifiers: int = 0) -> None:
        code = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37}[key]
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **named)

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
