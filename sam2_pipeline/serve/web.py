"""From requests to checked values, and from our errors to answers. Nothing that a client sends is used before it is checked."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from sam2_pipeline.errors import CheckpointError, ConfigError, PipelineError, StorageError, VideoError

log = logging.getLogger("sam2_pipeline.serve")

VideoId = Annotated[str, Field(min_length=1, max_length=1024)]
Number = Annotated[int, Field(ge=0, lt=2**31)]
ObjectId = Annotated[int, Field(ge=1, lt=2**31)]
Tab = Annotated[str, Field(max_length=64)]

Checked = TypeVar("Checked", bound=BaseModel)
_STATUS = ((CheckpointError, 503), (StorageError, 503), (VideoError, 422), (ConfigError, 400))


class Body(BaseModel):
    """JSON from a client: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Query(BaseModel):
    """Parameters in an address, where everything is text."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Conflict(Exception):
    """Somebody else was faster; ``state`` is how things are now."""

    def __init__(self, message: str, state: dict[str, Any]) -> None:
        super().__init__(message)
        self.state = state


class NotThere(Exception):
    """The client asks for something that is not here."""


def reading(kind: type[Checked], answer: Callable[[Checked], Any]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for GET: ``answer`` runs in a worker thread on the checked parameters; what it gives becomes JSON."""

    async def endpoint(request: Request) -> Response:
        return await _answered(answer, _checked(lambda: kind.model_validate(dict(request.query_params))))

    return endpoint


def writing(kind: type[Checked], answer: Callable[[Checked], Any]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for POST: the same on a checked JSON body."""

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        return await _answered(answer, _checked(lambda: kind.model_validate_json(body)))

    return endpoint


async def _answered(answer: Callable[[Checked], Any], value: Checked) -> Response:
    # once begun it is finished, also if the client leaves: half an edit would be worse than one that nobody waits for
    result = await asyncio.shield(asyncio.ensure_future(run_in_threadpool(answer, value)))
    return result if isinstance(result, Response) else JSONResponse(result, headers={"cache-control": "no-store"})


def _checked(check: Callable[[], Checked]) -> Checked:
    try:
        return check()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the request"
        raise HTTPException(422, f"{where}: {first['msg']}") from error


def on_conflict(request: Request, error: Exception) -> Response:
    assert isinstance(error, Conflict)
    return JSONResponse({"error": str(error), "state": error.state}, 409)


def on_not_there(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404)


def on_pipeline_error(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    return JSONResponse({"error": str(error)}, status)


def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


def on_bug(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": f"the server failed on this ({type(error).__name__}); see its log"}, 500)


async def on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


HANDLERS: dict[Any, Any] = {
    Conflict: on_conflict,
    NotThere: on_not_there,
    PipelineError: on_pipeline_error,
    HTTPException: on_http_error,
    ClientDisconnect: on_disconnect,
    Exception: on_bug,
}
