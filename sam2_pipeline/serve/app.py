"""The application: which address asks what of whom. Everything behind an address is named by ids, never by a path."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib import resources
from typing import Annotated, Any

from pydantic import Field
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sam2_pipeline.serve.annotate_api import annotate_routes
from sam2_pipeline.serve.annotator import Annotator
from sam2_pipeline.serve.frames import FrameStore
from sam2_pipeline.serve.guard import Access, Guard
from sam2_pipeline.serve.review import Reviewer
from sam2_pipeline.serve.review_api import review_routes
from sam2_pipeline.serve.web import HANDLERS, NotThere, Number, Query, VideoId, reading

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class Site:
    """What is served.

    Attributes:
        title: shown at the top.
        reviewer: None where there are no masklets yet, as before the first save of a video's annotations.
        find_reviewer: looks for masklets to review; called while there are none.
    """

    title: str
    author: str
    frames: FrameStore
    annotator: Annotator
    find_reviewer: Callable[[], Reviewer | None]
    access: Access = field(default_factory=Access)

    def reviewer(self) -> Reviewer:
        found = self.find_reviewer()
        if found is None:
            raise NotThere("there are no masklets to review yet: annotate and save some")
        return found


class FrameQuery(Query):
    video: VideoId
    frame: Number
    width: Annotated[int, Field(ge=32, le=4096)] = 1280


class Nothing(Query):
    pass


def make_app(site: Site) -> Starlette:
    """The ASGI application; its parts are closed when it ends."""

    def info(_: Nothing) -> dict[str, Any]:
        reviewer = site.find_reviewer()
        return {
            "title": site.title,
            "author": site.author,
            "videos": len(site.frames.videos),
            "masklets": 0 if reviewer is None else reviewer.counts()["all"],
            "annotations": site.annotator.output.url,
        }

    def videos(_: Nothing) -> dict[str, Any]:
        reviewer = site.find_reviewer()
        counts = reviewer.per_video() if reviewer else {}
        return {
            "videos": [{"video_id": video_id, "masklets": counts.get(video_id, 0)} for video_id in sorted(site.frames.videos)]
        }

    def frame(query: FrameQuery) -> Response:
        jpeg = site.frames.jpeg(query.video, query.frame, query.width)
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        site.annotator.close()
        site.frames.close()

    routes = [
        *(Route(path, _static(name)) for path, name in _pages()),
        Route("/favicon.ico", lambda request: Response(status_code=204)),
        Route("/api/info", reading(Nothing, info)),
        Route("/api/videos", reading(Nothing, videos)),
        Route("/api/frame", reading(FrameQuery, frame)),
        *review_routes(site.reviewer),
        *annotate_routes(site.annotator, site.reviewer),
    ]
    guard = Middleware(Guard, access=site.access)
    return Starlette(routes=routes, middleware=[guard], exception_handlers=HANDLERS, lifespan=lifespan)


def _pages() -> list[tuple[str, str]]:
    """Address and name of every file of the front end; there are no others, so no path can lead elsewhere."""
    names = [entry.name for entry in resources.files("sam2_pipeline.serve").joinpath("static").iterdir() if "." in entry.name]
    return [("/", "index.html"), *((f"/static/{name}", name) for name in sorted(names) if name.rpartition(".")[2] in _TYPES)]


def _static(name: str) -> Callable[[Request], Response]:
    content = resources.files("sam2_pipeline.serve").joinpath("static", name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    def endpoint(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return endpoint
