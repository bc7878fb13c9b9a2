"""Headless Chromium through its own driver's HTTP interface (WebDriver, W3C): no package is needed for it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from types import TracebackType
from typing import Any


def find_driver() -> str | None:
    """The path of chromedriver, which comes with Chromium; None where it is not installed."""
    return shutil.which("chromedriver")


class Browser:
    """One window. ``width`` and ``height`` in pixels; ``dark``: the person prefers dark pages."""

    def __init__(self, *, width: int, height: int, dark: bool = False) -> None:
        self._profile = tempfile.TemporaryDirectory()
        self._driver = subprocess.Popen([str(find_driver()), "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self._driver.stdout is not None
        port = ""
        while not port:  # "ChromeDriver was started successfully on port 12345."
            line = self._driver.stdout.readline()
            found = re.search(r"on port (\d+)", line)
            assert line, "chromedriver ended"
            port = found[1] if found and "success" in line else ""
        self._base = f"http://127.0.0.1:{port}"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self._profile.name}"]
        arguments += ["--blink-settings=preferredColorScheme=0"] if dark else []
        options = {
            "goog:chromeOptions": {
                "args": arguments,
                "mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}},
            },
            "goog:loggingPrefs": {"performance": "ALL"},
        }
        made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        self._base += f"/session/{made['sessionId']}"

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._send("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(10)
            self._profile.cleanup()

    def open(self, address: str) -> None:
        self.requests()  # those of the empty window are read and forgotten
        self._send("POST", "/url", {"url": address})

    def run(self, script: str) -> Any:
        return self._send("POST", "/execute/sync", {"script": script, "args": []})

    def picture(self) -> bytes:
        """What the window shows, as a PNG file."""
        return base64.b64decode(self._send("GET", "/screenshot"))

    def requests(self) -> list[str]:
        """Every address that a page asked for since the last call, but the browser's own (``chrome:``)."""
        entries = self._send("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [str(address) for address in sent if not address.startswith("chrome:")]

    def _send(self, method: str, path: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
