"""The images of a drill in S3, behind a proxy that can break."""

from collections.abc import Mapping
from pathlib import Path

from ops.dev.servers import S3Server
from ops.drills.fault_proxy import FaultProxy
from ops.drills.publisher import image_event

OBJECTS = 61
"""A denial counts as the store's, not the object's, if many different objects are denied. A prime, so that each
partition has events of all.
"""


class DrillObjectStore:
    """A bucket of a real S3 server; workers reach it through `proxy` only."""

    def __init__(self, server: S3Server, proxy: FaultProxy, bucket: str) -> None:
        self.proxy = proxy
        self._server = server
        self._bucket = bucket
        self._keys: list[str] = []
        server.ensure_bucket(bucket)

    def settings(self) -> Mapping[str, str]:
        """The section `s3` of a settings file."""
        return {"endpoint_url": self.proxy.endpoint, "region": self._server.region, "addressing_style": "path"}

    def credentials(self) -> Mapping[str, str]:
        """Environment variables of whoever reads the bucket."""
        return {"AWS_ACCESS_KEY_ID": self._server.access_key, "AWS_SECRET_ACCESS_KEY": self._server.secret_key}

    def fill(self, images: Path) -> None:
        """Uploads the publisher's images, which lie in this folder, as OBJECTS objects. Does it once."""
        if self._keys:
            return
        client = self._server.client()
        bodies = [path.read_bytes() for path in sorted(images.glob("[0-9].png"))]  # not what drills break
        for number in range(OBJECTS):
            key = f"{number}.png"
            client.put_object(Bucket=self._bucket, Key=key, Body=bodies[number % len(bodies)])
            self._keys.append(key)
        client.close()

    def event(self, i: int) -> bytes:
        """An event whose image must be fetched: without version and ETag no cached score is found for it."""
        return image_event(i, {"kind": "s3", "bucket": self._bucket, "key": self._keys[i % len(self._keys)]})
