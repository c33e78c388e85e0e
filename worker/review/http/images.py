"""Renditions and heat maps, behind signed links."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from schemas import FailureReason, ImageReference
from worker.images.errors import ImageError, TransientFetchError
from worker.review.http.answers import ResponseBuilder
from worker.review.http.api_access import ItemReader
from worker.review.http.app_context import AppContext, Context
from worker.review.http.heat_maps import Busy, HeatMap, NoEngine
from worker.review.http.problems import Problem
from worker.review.http.rate_limit import RateLimit
from worker.review.http.renditions import Rendition
from worker.review.http.sessions import Session
from worker.review.http.thread_budget import ThreadBudget
from worker.scoring.engine import EngineError

log = structlog.get_logger(__name__)
router = APIRouter(tags=["images"])


LOOKS: Final = RateLimit("heat-map", most=30, seconds=60)
WAIT_SECONDS: Final = "5"
IMAGES: Final = ThreadBudget("images", 32)
"""However slow a store is, decisions find a free thread."""


class HeatMapOut(BaseModel):
    """Where the fine stream sees damage, found by occlusion: `picture` is the image in grey, red where hiding a spot
    from the fine stream raises the quality more than elsewhere, blue where it lowers it.

    `largest` is the strongest effect of a spot, in points of quality; `flat`: no spot stands out. `same_model` tells
    whether the model that looked, `model`, is the one that judged the item.
    """

    picture: str
    largest: float
    flat: bool
    model: str
    same_model: bool


@router.get("/v1/items/{item_id}/heat-map")
def heat_map(
    item_id: Annotated[str, Path(min_length=1, max_length=512)], session: ItemReader, context: Context
) -> HeatMapOut:
    """Takes seconds when it was not made before. 429 when too many ask, 501 where the desk has no engine."""
    made = _heat_map(context, session, item_id)
    return HeatMapOut(
        picture=ResponseBuilder(context.links, session.user).heat_map(item_id),
        largest=made.largest,
        flat=made.is_flat,
        model=made.model,
        same_model=made.model == context.desk.item(item_id).item.model,
    )


@router.get("/v1/images/{token}/{rendition}", response_class=Response)
async def image(
    token: Annotated[str, Path(max_length=2048)],
    rendition: Rendition,
    request: Request,
    session: ItemReader,
    context: Context,
) -> Response:
    """Re-encoded pixels: the original file never reaches the browser."""
    known = request.headers.get("if-none-match")
    return await IMAGES.run(_image, context, session, token, rendition, known)


def _image(context: AppContext, session: Session, token: str, rendition: Rendition, known: str | None) -> Response:
    name = context.links.read(token, session.user)
    if name is None:
        raise Problem(HTTPStatus.FORBIDDEN, "stale-link", "the link is not yours or too old; ask for the item again")
    if rendition is Rendition.HEAT_MAP:
        rendered = _heat_map(context, session, name).picture
    else:
        reference, content_hash = _reference(context, name)
        with _refusals():
            rendered = context.renderer.render(reference, content_hash, rendition, _frame(context, name))
    headers = {
        "ETag": rendered.etag,
        # The browser asks each time, so a copy in its cache shows nothing to the next person who signs in there.
        "Cache-Control": "private, no-cache",
        "Content-Disposition": "inline",
        "X-Image-Width": str(rendered.width),
        "X-Image-Height": str(rendered.height),
        **rendered.headers,
    }
    if known == rendered.etag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(rendered.data, media_type=rendered.media_type, headers=headers)


def _heat_map(context: AppContext, session: Session, name: str) -> HeatMap:
    """The one that is known, or a new one: at most so many of those a minute for one person."""
    (reference, content_hash), frame = _reference(context, name), _frame(context, name)
    if (known := context.heat_maps.known(reference, content_hash, frame)) is not None:
        return known
    if wait := LOOKS.take(context.redis, session.user):
        detail = f"at most {LOOKS.most} heat maps a minute; try again in {wait} seconds"
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too-many-heat-maps", detail, headers={"Retry-After": str(wait)})
    try:
        # Not 502: that would read as if the desk were away.
        with _refusals(transient=HTTPStatus.FAILED_DEPENDENCY):
            return context.heat_maps.make(reference, content_hash, frame)
    except Busy as error:
        headers = {"Retry-After": WAIT_SECONDS}
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "heat-maps-busy", str(error), headers=headers) from None
    except NoEngine as error:
        raise Problem(HTTPStatus.NOT_IMPLEMENTED, "no-engine", str(error)) from None
    except EngineError as error:
        log.warning("heat_map_failed", error=str(error))
        detail = "the engine failed on this image; try again"
        raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "engine-failed", detail) from None


@contextmanager
def _refusals(transient: HTTPStatus = HTTPStatus.BAD_GATEWAY) -> Iterator[None]:
    """Problems of images that cannot be shown."""
    try:
        yield
    except ImageError as error:
        missing = error.reason in {FailureReason.IMAGE_NOT_FOUND, FailureReason.ACCESS_DENIED}
        status = HTTPStatus.NOT_FOUND if missing else HTTPStatus.UNPROCESSABLE_ENTITY
        raise Problem(status, error.reason.value.replace("_", "-"), str(error)) from None
    except TransientFetchError as error:
        raise Problem(transient, "fetch-failed", str(error), headers={"Retry-After": "2"}) from None


def _frame(context: AppContext, name: str) -> int:
    """The frame of an animation that is shown: the worst, which decided. 0 for a still image."""
    if (shown := context.shown_verdicts.get(name)) is not None:
        return shown.frame
    scores = context.desk.item(name).item.scores
    return (scores.worst_frame or 0) if scores is not None else 0


def _reference(context: AppContext, name: str) -> tuple[ImageReference, str | None]:
    """What a link names: a past verdict that a replay has shown, or an item."""
    if (shown := context.shown_verdicts.get(name)) is not None:
        return shown.reference, shown.content_hash
    found = context.desk.image(name)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no-image", "the event of this item was malformed and names no image")
    return found
