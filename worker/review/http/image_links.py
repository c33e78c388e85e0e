"""Short-lived signed links to renditions, made when an image is looked at; itsdangerous signs and dates them."""

from collections.abc import Callable, Iterable
from typing import Final

from itsdangerous import BadData, URLSafeTimedSerializer
from itsdangerous.timed import TimestampSigner

from worker.review.http.renditions import Rendition

LINK_SECONDS: Final = 15 * 60


class ImageLinks:
    """Signs links for one person: somebody else's link, or an old one, shows nothing.

    One signature is for all renditions of an image: they are given to the same people.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:
                return int(clock())

        self._serializer = URLSafeTimedSerializer(secret, salt="sluice.desk.image-link", signer=Signer)

    def make(self, name: str, user: str, renditions: Iterable[Rendition]) -> dict[Rendition, str]:
        """The paths of the links to these renditions of what `name` names."""
        token = self._serializer.dumps([name, user])
        return {rendition: f"/v1/images/{token}/{rendition.value}" for rendition in renditions}

    def read(self, token: str, user: str) -> str | None:
        """What the token names; None when it is forged, too old or somebody else's."""
        try:
            name, owner = self._serializer.loads(token, max_age=LINK_SECONDS)
        except (BadData, ValueError, TypeError):
            return None
        return str(name) if owner == user else None
