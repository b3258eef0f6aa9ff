"""Addresses of the review."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.routing import Route

from sam2_pipeline.io.verdicts import Word
from sam2_pipeline.serve.review import MAX_ROWS, Order, Review, Reviewer, Wanted
from sam2_pipeline.serve.web import Body, Number, Query, VideoId, reading, writing

MAX_NOTE = 2000


class ListQuery(Query):
    order: Order = "doubt"
    review: Review = "all"
    video: VideoId | None = None
    kind: Literal["auto", "prompted"] | None = None
    bucket: Literal["small", "medium", "large"] | None = None
    search: Annotated[str, Field(max_length=256)] = ""
    start: Number = 0
    count: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 200
    refresh: bool = False


class MaskletQuery(Query):
    video: VideoId
    masklet: Number


class MasksQuery(MaskletQuery):
    start: Number
    stop: Number
    others: bool = False


class VerdictBody(Body):
    video: VideoId
    masklet: Number
    verdict: Word | None
    note: Annotated[str, Field(max_length=MAX_NOTE)] | None = None
    seen: Annotated[str, Field(max_length=64)] | None = None


class UndoBody(Body):
    pass


def review_routes(reviewer: Callable[[], Reviewer]) -> list[Route]:
    def masklets(query: ListQuery) -> dict[str, Any]:
        found = reviewer()
        if query.refresh:
            found.refresh()
        wanted = query.model_dump(exclude={"video", "refresh"}) | {"video_id": query.video}
        return found.masklets(Wanted(**wanted))

    def track(query: MaskletQuery) -> dict[str, Any]:
        return reviewer().track(query.video, query.masklet)

    def masks(query: MasksQuery) -> dict[str, Any]:
        return reviewer().masks(query.video, query.masklet, query.start, query.stop, query.others)

    def verdict(body: VerdictBody) -> dict[str, Any]:
        return reviewer().say(body.video, body.masklet, body.verdict, body.note, body.seen)

    def undo(_: UndoBody) -> dict[str, Any]:
        return reviewer().undo()

    return [
        Route("/api/review/masklets", reading(ListQuery, masklets)),
        Route("/api/review/track", reading(MaskletQuery, track)),
        Route("/api/review/masks", reading(MasksQuery, masks)),
        Route("/api/review/verdict", writing(VerdictBody, verdict), methods=["POST"]),
        Route("/api/review/undo", writing(UndoBody, undo), methods=["POST"]),
    ]
