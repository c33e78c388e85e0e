"""Renditions, behind signed links."""

from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Request, Response

from schemas import FailureReason, ImageReference
from worker.images.errors import ImageError, TransientFetchError
from worker.review.http.door import Door, SignedIn, TheDoor
from worker.review.http.image_links import LINK_SECONDS
from worker.review.http.problems import Problem

log = structlog.get_logger(__name__)
router = APIRouter(tags=["images"])


@router.get("/v1/images/{token}", response_class=Response)
def image(token: Annotated[str, Path(max_length=2048)], request: Request, session: SignedIn, door: TheDoor) -> Response:
    """Pixels encoded anew: what came from outside never reaches the browser as it is."""
    link = door.links.read(token, session.user)
    if link is None:
        raise Problem(HTTPStatus.FORBIDDEN, "stale-link", "the link is not yours or too old; ask for the item again")
    name, rendition = link
    reference, content_hash = _reference(door, name)
    try:
        rendered = door.renderer.render(reference, content_hash, rendition)
    except ImageError as error:
        missing = error.reason in {FailureReason.IMAGE_NOT_FOUND, FailureReason.ACCESS_DENIED}
        status = HTTPStatus.NOT_FOUND if missing else HTTPStatus.UNPROCESSABLE_ENTITY
        raise Problem(status, error.reason.value.replace("_", "-"), str(error)) from None
    except TransientFetchError as error:
        raise Problem(HTTPStatus.BAD_GATEWAY, "fetch-failed", str(error), headers={"Retry-After": "2"}) from None
    headers = {
        "ETag": rendered.etag,
        "Cache-Control": f"private, max-age={LINK_SECONDS}, immutable",
        "Content-Disposition": "inline",
        "X-Image-Width": str(rendered.width),
        "X-Image-Height": str(rendered.height),
    }
    if request.headers.get("if-none-match") == rendered.etag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(rendered.data, media_type=rendered.media_type, headers=headers)


def _reference(door: Door, name: str) -> tuple[ImageReference, str | None]:
    """What a link names: a past verdict that a replay has shown, or an item."""
    if (shown := door.shown_verdicts.get(name)) is not None:
        return shown
    image = door.desk.image(name)
    if image is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no-image", "the event of this item was malformed and names no image")
    return image, door.desk.item(name).item.content_hash
