"""Short-lived signed links to renditions, made when an image is looked at; itsdangerous signs and dates them."""

from collections.abc import Callable
from typing import Final

from itsdangerous import BadData, URLSafeTimedSerializer
from itsdangerous.timed import TimestampSigner

from worker.review.http.renditions import Rendition

LINK_SECONDS: Final = 15 * 60


class ImageLinks:
    """Signs links for one person: somebody else's link, or an old one, shows nothing."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(clock())

        self._serializer = URLSafeTimedSerializer(secret, salt="sluice.desk.image-link", signer=Signer)

    def make(self, item_id: str, rendition: Rendition, user: str) -> str:
        """The path of the link."""
        return f"/v1/images/{self._serializer.dumps([item_id, rendition.value, user])}"

    def read(self, token: str, user: str) -> tuple[str, Rendition] | None:
        """Item and rendition of a link; None when it is forged, too old or somebody else's."""
        try:
            item_id, rendition, owner = self._serializer.loads(token, max_age=LINK_SECONDS)
        except (BadData, ValueError, TypeError):
            return None
        return (item_id, Rendition(rendition)) if owner == user else None
