"""Addresses of the annotator."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response
from starlette.routing import Route

from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.serve.annotator import Annotator
from sam2_pipeline.serve.exports import export_video
from sam2_pipeline.serve.review import Reviewer
from sam2_pipeline.serve.web import Body, Number, ObjectId, Query, Tab, VideoId, reading, writing

MAX_POINTS = 256
Coordinate = Annotated[float, Field(ge=0, le=1 << 20)]
Name = Annotated[str, Field(max_length=100)]


class VideoQuery(Query):
    video: VideoId


class FramesQuery(VideoQuery):
    start: Number
    stop: Number


class ExportQuery(VideoQuery):
    format: Literal["prompts", "sav", "coco"]


class VideoBody(Body):
    video: VideoId


class EditBody(VideoBody):
    """An edit says which version it was made on, and in which tab."""

    version: Number
    tab: Tab = ""


class RleBody(Body):
    size: tuple[Annotated[int, Field(ge=1, le=1 << 16)], Annotated[int, Field(ge=1, le=1 << 16)]]
    counts: Annotated[str, Field(max_length=4 << 20)]


class PromptBody(EditBody):
    object_id: ObjectId
    frame: Number
    points: Annotated[tuple[tuple[Coordinate, Coordinate], ...], Field(max_length=MAX_POINTS)] = ()
    labels: Annotated[tuple[Annotated[int, Field(ge=0, le=1)], ...], Field(max_length=MAX_POINTS)] = ()
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    mask: RleBody | None = None


class RemovePromptBody(EditBody):
    object_id: ObjectId
    frame: Number


class AddBody(EditBody):
    name: Name = ""


class RenameBody(EditBody):
    object_id: ObjectId
    name: Annotated[str, Field(min_length=1, max_length=100)]


class ObjectBody(EditBody):
    object_id: ObjectId


class AdoptBody(EditBody):
    masklet: Number
    frame: Number | None = None


class SaveBody(VideoBody):
    version: Number


def annotate_routes(annotator: Annotator, reviewer: Callable[[], Reviewer]) -> list[Route]:
    def prompt(body: PromptBody) -> dict[str, Any]:
        mask = None if body.mask is None else Rle.from_coco(body.mask.model_dump())
        given = Prompt(body.object_id, body.frame, body.points, body.labels, body.box, mask)  # type: ignore[arg-type]
        return annotator.prompt(body.video, body.version, body.tab, given)

    def adopt(body: AdoptBody) -> dict[str, Any]:
        frame, mask = reviewer().mask(body.video, body.masklet, body.frame)
        return annotator.adopt_mask(body.video, body.version, body.tab, f"Masklet {body.masklet}", frame, mask) | {"frame": frame}

    def export(query: ExportQuery) -> Response:
        content = export_video(annotator, query.video, query.format)
        name = f"{query.video.rpartition('/')[2]}.{query.format}.{'jsonl' if query.format == 'prompts' else 'json'}"
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
        headers = {"content-disposition": f'attachment; filename="{plain}"', "cache-control": "no-store"}
        return Response(content, media_type="application/json", headers=headers)

    def edits(name: str, kind: type[EditBody], *fields: str) -> Route:
        method = getattr(annotator, name)

        def edit(body: EditBody) -> dict[str, Any]:
            return method(body.video, body.version, body.tab, *(getattr(body, field) for field in fields))

        return Route(f"/api/annotate/{name.replace('_', '-')}", writing(kind, edit), methods=["POST"])

    def post(name: str, kind: type[Body], answer: Callable[[Any], Any]) -> Route:
        return Route(f"/api/annotate/{name}", writing(kind, answer), methods=["POST"])

    return [
        Route("/api/annotate/state", reading(VideoQuery, lambda query: annotator.state(query.video))),
        Route("/api/annotate/masks", reading(FramesQuery, lambda query: annotator.masks(query.video, query.start, query.stop))),
        Route("/api/annotate/progress", reading(VideoQuery, lambda query: annotator.progress(query.video))),
        Route("/api/annotate/export", reading(ExportQuery, export)),
        post("prompt", PromptBody, prompt),
        post("adopt", AdoptBody, adopt),
        edits("remove_prompt", RemovePromptBody, "object_id", "frame"),
        edits("add_object", AddBody, "name"),
        edits("rename_object", RenameBody, "object_id", "name"),
        edits("remove_object", ObjectBody, "object_id"),
        edits("undo", EditBody),
        post("propagate", VideoBody, lambda body: annotator.propagate(body.video)),
        post("cancel", VideoBody, lambda body: annotator.cancel(body.video)),
        post("save", SaveBody, lambda body: annotator.save(body.video, body.version)),
    ]
