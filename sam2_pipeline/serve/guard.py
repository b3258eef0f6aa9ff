"""Who may talk to the server, and how much at once: checked before a request reaches anything that could be hurt by it."""

import asyncio
import hmac
import ipaddress
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "sam2_pipeline_token"
MAX_BODY = 4 << 20  # bytes: a brushed mask of a large picture is some tens of kilobytes
MAX_QUERY = 8 << 10
BODY_S = 20.0  # a body that takes longer is not worth the wait
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE = frozenset({"GET", "HEAD"})
# Nothing from elsewhere, and nobody may show us inside a page of theirs.
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """Under which names the server answers, and with which token; None: to whoever reaches it, which is this machine alone.

    A page of somebody else whose name suddenly resolves to us (DNS rebinding) sends its own name as Host, which is none of
    ours. Bare addresses cannot be rebound; with a token they are all taken.
    """

    token: str | None = None
    names: frozenset[str] = field(default=_LOOPBACK)

    @classmethod
    def to(cls, host: str, token: str | None, more_names: Iterable[str] = ()) -> "Access":
        """For a server that is bound to ``host``."""
        own = {host, socket.gethostname()} if token else set()
        return cls(token, _LOOPBACK | {name.lower() for name in (*own, *more_names)})

    def knows(self, host: str | None) -> bool:
        name = _name_of(host)
        return name is not None and (name in self.names or (self.token is not None and _is_address(name)))

    def admits(self, token: str | None) -> bool:
        return self.token is None or (token is not None and hmac.compare_digest(token.encode(), self.token.encode()))


class Guard:
    """ASGI middleware: names, origins, token, size and duration of a request; security headers of the answer.

    ``/?token=...`` stores the token in a cookie and forgets it in the address; programs send ``Authorization: Bearer``.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no websockets
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal:
            await _answer(send, *refusal)
            return
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if self.access.token is not None and scope["path"] == "/" and "token" in query:
            await self._log_in(send, query)
            return
        if not self.access.admits(_token_of(headers)):
            await _answer(send, 401, "a token is needed: open the address that `sam2-pipeline serve` printed")
            return
        body = b""
        if scope["method"] not in _SAFE:
            try:
                body = await asyncio.wait_for(_read(receive), BODY_S)
            except TimeoutError:
                await _answer(send, 408, f"the body took longer than {BODY_S:.0f} s")
                return
            except ValueError as error:
                await _answer(send, 413, str(error))
                return
        await self.app(scope, _once(body, receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host, origin = headers.get("host"), headers.get("origin")
        if not self.access.knows(host):
            return 421, f"this server does not answer as {host or 'nobody'!r}; see --allow-host"
        if origin is not None and (urlsplit_safe(origin) != (host or "").lower()):
            return 403, "requests of other sites are refused"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["path"] != "/":
            return 403, "requests of other sites are refused"
        if scope["method"] not in (*_SAFE, "POST"):
            return 405, "expected GET or POST"
        if len(scope["query_string"]) > MAX_QUERY or len(scope["path"]) > MAX_QUERY:
            return 414, "the address is too long"
        if scope["method"] == "POST" and not (headers.get("content-type") or "").startswith("application/json"):
            return 415, "expected application/json"  # which forms of other sites cannot send
        length = headers.get("content-length")
        if length is not None and (not length.isdecimal() or len(length) > 18 or int(length) > MAX_BODY):
            return 413, f"the body may have {MAX_BODY} bytes"
        return None

    async def _log_in(self, send: Send, query: Mapping[str, list[str]]) -> None:
        if not self.access.admits(query["token"][0]):
            await _answer(send, 401, "this is not the token of this server (any more)")
            return
        rest = urlencode({name: values[0] for name, values in query.items() if name != "token"})
        cookie = f"{COOKIE}={self.access.token}; HttpOnly; SameSite=Strict; Path=/"
        headers = [(b"location", f"/?{rest}".rstrip("?").encode()), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def urlsplit_safe(origin: str) -> str | None:
    """Host and port of an origin, None for anything else."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _name_of(host: str | None) -> str | None:
    """The name in a Host header, without its port."""
    if host is None:
        return None
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _token_of(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return cookie_parser(headers.get("cookie", "")).get(COOKIE)


async def _read(receive: Receive) -> bytes:
    """The whole body. Raises ValueError when it is too long, whatever its header said."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise ValueError(f"the body may have {MAX_BODY} bytes")
        if not message.get("more_body"):
            return bytes(body)


def _once(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already; then whatever else comes, which is the end of the connection."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return next_message


def _with_headers(send: Send) -> Send:
    async def send_it(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return send_it


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
