"""`--view`: a stream's masks in a browser of this machine, as a picture that changes (MJPEG).

The latest picture is all that is held. Whoever is slower than the stream misses pictures, and nobody delays it.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable
from typing import Self

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sam2_pipeline.serve.guard import Access, Guard
from sam2_pipeline.serve.serving import listening

HOST = "127.0.0.1"  # pictures of a camera are for this machine alone
MAX_WATCHERS = 8
_QUALITY = 80
_BOUNDARY = "frame"
_PATIENCE_S = 2.0  # for watchers to go when the stream has ended
_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>sam2-pipeline live</title><link rel="stylesheet" href="/view.css">
<img src="/stream" alt="the stream with its masks"></html>"""
_STYLE = b"""body { margin: 0; height: 100vh; display: flex; background: #111; }
img { margin: auto; width: 100%; height: 100%; object-fit: contain; }"""


class View:
    """Serves what `show` is given at ``address``. A context manager.

    Args:
        port: on the loopback address; 0 takes a free one.

    Raises:
        ConfigError: the port cannot be had.
    """

    def __init__(self, port: int) -> None:
        self._opened = listening(HOST, port, "--view")
        self._listener = self._opened.__enter__()
        self._listener.listen()  # so that who comes before the thread runs waits, and is not refused
        self.address = f"http://{HOST}:{self._listener.getsockname()[1]}/"
        self._jpeg, self._number, self._ended = b"", 0, False
        self._watchers = 0
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Condition()
        settings = uvicorn.Config(
            self._app(), log_level="warning", server_header=False, lifespan="off", limit_concurrency=4 * MAX_WATCHERS,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._serve, name="live view", daemon=True)
        self._thread.start()

    @property
    def watched(self) -> bool:
        """Whether anybody looks; pictures need not be drawn for nobody."""
        return self._watchers > 0

    def show(self, picture: np.ndarray) -> None:
        """The picture from now on, uint8 RGB ``[H, W, 3]``. Returns at once."""
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY)
        self._tell(lambda: self._take(buffer.getvalue()))

    def close(self) -> None:
        """Ends the connections and frees the port."""
        self._tell(self._end)
        self._thread.join(_PATIENCE_S + 1)
        self._opened.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------- in the thread of the server only

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._server.serve(sockets=[self._listener]))

    def _tell(self, change: Callable[[], None]) -> None:
        async def tell() -> None:
            async with self._changed:
                change()
                self._changed.notify_all()

        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(tell(), self._loop)

    def _take(self, jpeg: bytes) -> None:
        self._jpeg, self._number = jpeg, self._number + 1

    def _end(self) -> None:
        self._ended = self._server.should_exit = True

    def _app(self) -> Starlette:
        async def stream(request: Request) -> Response:
            if self._watchers >= MAX_WATCHERS:
                return Response(f"{MAX_WATCHERS} are watching, which is enough", 503)
            kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
            return StreamingResponse(self._pictures(), media_type=kind, headers={"cache-control": "no-store"})

        routes = [
            Route("/", lambda request: Response(_PAGE, media_type="text/html")),
            Route("/view.css", lambda request: Response(_STYLE, media_type="text/css")),
            Route("/favicon.ico", lambda request: Response(status_code=204)),
            Route("/stream", stream),
        ]
        return Starlette(routes=routes, middleware=[Middleware(Guard, access=Access())])

    async def _pictures(self) -> AsyncIterator[bytes]:
        """Every picture that there is time for, until the stream ends."""
        self._watchers += 1
        seen = self._number
        try:
            while True:
                async with self._changed:
                    while self._number == seen and not self._ended:
                        await self._changed.wait()
                    jpeg = self._jpeg
                    if self._number == seen:
                        return
                    seen = self._number
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                yield head.encode() + jpeg + b"\r\n"
        finally:
            self._watchers -= 1
