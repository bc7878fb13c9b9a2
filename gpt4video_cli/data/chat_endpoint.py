"""Asks an OpenAI-compatible endpoint (``POST BASE/chat/completions``) for an answer. Contacts nothing else."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any

from gpt4video_cli.errors import Gpt4VideoError, UsageError

KEY = "OPENAI_API_KEY"
TRIES = 4
TIMEOUT = 120.0
"""Seconds for one answer."""
_LARGEST_ANSWER = 1 << 20
_LONGEST_WAIT = 30.0
_LOCAL = ("localhost", "127.0.0.1", "::1")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key and the text to somebody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class ChatEndpoint:
    """``base``: such as ``http://localhost:8000/v1``. The key, if any, is in the environment (``OPENAI_API_KEY``)."""

    def __init__(self, base: str, model: str, *, wait: Callable[[float], None] = time.sleep) -> None:
        """Raises ``UsageError`` for an address that is none, or that would show the key to the network."""
        parts = urllib.parse.urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{base}: not the address of an endpoint", hint="such as http://localhost:8000/v1")
        self._key = os.environ.get(KEY, "")
        if self._key and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise UsageError(f"{base}: would send {KEY} unencrypted", hint="use https, or unset the variable")
        self._url, self._model, self._wait = base.rstrip("/") + "/chat/completions", model, wait
        self._opener = urllib.request.build_opener(_NoRedirects)

    def ask(self, messages: Sequence[dict[str, str]], *, seed: int) -> str:
        """The answer's text. What may pass (429, 5xx, no connection) is tried again; then ``Gpt4VideoError``."""
        body = json.dumps({"model": self._model, "messages": list(messages), "seed": seed, "temperature": 0.7}).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        why = ""
        for number in range(TRIES):
            pause = 2.0**number
            request = urllib.request.Request(self._url, body, headers)
            try:
                with self._opener.open(request, timeout=TIMEOUT) as response:
                    return _content(response.read(_LARGEST_ANSWER))
            except urllib.error.HTTPError as error:
                why = f"HTTP {error.code}"
                if error.code != 429 and error.code < 500:
                    hint = (
                        f"is {KEY} right?"
                        if error.code in (401, 403)
                        else "is the address right, and the model's name?"
                    )
                    raise Gpt4VideoError(f"{self._url}: {why}", hint=hint) from error
                asked = error.headers.get("Retry-After", "")
                pause = min(_LONGEST_WAIT, float(asked)) if asked.isdigit() else pause
            except (OSError, HTTPException) as error:  # URLError is an OSError
                why = str(getattr(error, "reason", error)) or type(error).__name__
            if number + 1 < TRIES:
                self._wait(pause)
        raise Gpt4VideoError(f"{self._url}: no answer ({why})", hint="--resume goes on from here")


def _content(body: bytes) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Gpt4VideoError("the endpoint's answer is no chat completion") from error
    if not isinstance(content, str):
        raise Gpt4VideoError("the endpoint's answer has no text")
    return content
