"""How the pages travel: security headers, caching, compression, and who is let in. Nothing here knows what a page shows.

The content security policy allows scripts of our own and the hashes of Dash's inline ones, styles inline (Mantine, Plotly
and AG Grid make them), images as data, and no other host for anything: an air-gapped browser misses nothing.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Response, abort, request
from flask_compress import Compress

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_FOREVER: Final = "public, max-age=31536000, immutable"


def policy(script_hashes: Sequence[str]) -> str:
    """The value of `Content-Security-Policy`."""
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src 'self'", *script_hashes)),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def deliver(server: Flask, host: str, script_hashes: Sequence[str]) -> None:
    """Adds all of it to `server`, which is bound to `host`."""
    content_policy = policy(script_hashes)

    @server.before_request
    def refuse_strangers() -> None:
        if refused(host, request.host, request.headers.get("Origin")):
            abort(403, "This dashboard is bound to this machine: open it as http://127.0.0.1 or http://localhost.")

    @server.after_request
    def add_headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = content_policy
        for name, value in _HEADERS.items():
            response.headers[name] = value
        response.headers["Cache-Control"] = _caching(response)
        return response

    Compress(server)

    @server.after_request  # registered last, so it runs first
    def take_in(response: Response) -> Response:
        """A file is read whole before it is compressed: a stream would be compressed without closing the file."""
        if response.is_streamed and request.path.startswith("/assets/"):
            response.direct_passthrough = False
            response.make_sequence()
        return response


def refused(bound_to: str, host: str, origin: str | None) -> bool:
    """Whether a request must not be answered.

    Bound to loopback, only loopback names are served: else a page elsewhere could point its own name at 127.0.0.1 and read
    prompts through the reader's browser. Whatever the binding, a request that a page of another origin sent is refused.
    """
    asked_for = urlsplit(f"//{host}").hostname or ""
    if bound_to in LOOPBACK and asked_for not in LOOPBACK:
        return True
    return origin is not None and urlsplit(origin).netloc != host


def _caching(response: Response) -> str:
    """Files whose address changes with their content stay for ever, other files are asked for again, data never stays."""
    if request.method != "GET" or response.status_code not in (200, 304):
        return "no-store"
    if request.path.startswith("/_dash-component-suites/"):
        return _FOREVER if response.cache_control.max_age else "no-cache"
    if request.path.startswith("/assets/"):
        versioned = "m" in request.args or request.path.startswith("/assets/fonts/")
        return _FOREVER if versioned else "no-cache"
    return "no-store"
