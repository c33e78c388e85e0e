"""Builds the desk's web application from the settings, and serves it."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import redis
from fastapi import FastAPI

from worker.cache.client import connect_embedded, connect_server
from worker.images.decode import DecodeLimits
from worker.images.decoder_pool import DecoderPool
from worker.images.fetch import build_fetcher
from worker.intake.interpreter import tune_interpreter
from worker.policy.place import open_place, place_of
from worker.review import intake_numbers
from worker.review.dead_letters import DeadLetters
from worker.review.desk_api import DeskApi
from worker.review.http import past_verdicts
from worker.review.http.accounts import PEOPLE_FILE, Accounts
from worker.review.http.app import build_app
from worker.review.http.app_context import AppContext, ShownVerdicts
from worker.review.http.frame_sheets import SHEET_VIEWS, sheet_limits
from worker.review.http.heat_maps import ExplainEngine, HeatMaps
from worker.review.http.image_links import ImageLinks
from worker.review.http.oidc import OidcProvider
from worker.review.http.past_verdicts import PastVerdicts
from worker.review.http.policies import Policies
from worker.review.http.renditions import Renderer
from worker.review.http.server import DeskServer, DeskServerError, listen
from worker.review.http.sessions import Sessions
from worker.review.running import open_desk
from worker.scoring.model import load_model
from worker.settings import Settings, WebSettings
from worker.supervision import Supervisor
from worker.wiring import open_engine

KEY_FILE = "desk.key"
OIDC_SECONDS = 10.0
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServedDesk:
    """A desk that is served: its address, and the one-time link for the first user where there is none yet."""

    address: str
    first_link: str | None
    app: FastAPI
    _close: Callable[[], None]

    def close(self) -> None:
        self._close()


@dataclass(frozen=True, slots=True)
class DeskApp:
    """The desk as an application that somebody else serves. `first_link` is as an ServedDesk's."""

    app: FastAPI
    first_link: str | None
    _close: Callable[[], None]

    def close(self) -> None:
        self._close()


@contextmanager
def open_and_serve_desk(
    settings: Settings,
    data: Path | None,
    folder: Path,
    explain_engine: ExplainEngine | None = None,
    supervisor: Supervisor | None = None,
) -> Iterator[ServedDesk]:
    """Serves a desk of its own for as long as the context lasts: on Kafka and Redis, or on the embedded log below
    `data` with an index in memory. `explain_engine` as for `serve_desk`. `supervisor` runs the loops; absent: the
    desk's own.

    Raises DeskServerError, AccountsError and LogError.
    """
    client = connect_server(settings.redis) if data is None else connect_embedded()
    try:
        with (
            closing(open_desk(settings, data, client, supervisor, folder)) as desk,
            closing(serve_desk(settings, folder, desk, client, data, explain_engine, desk.supervisor)) as served,
        ):
            yield served
    finally:
        client.close()


def serve_desk(
    settings: Settings,
    folder: Path,
    desk: DeskApi,
    client: redis.Redis,
    data: Path | None,
    explain_engine: ExplainEngine | None = None,
    supervisor: Supervisor | None = None,
) -> ServedDesk:
    """Serves the desk. `folder` keeps local users and the signing key; `data` holds the embedded log, None: Kafka.
    Heat maps are made by `explain_engine`, the caller's; without one the desk opens its own for the first of them.

    `desk`, `client` and `explain_engine` stay the caller's. Raises DeskServerError and AccountsError.
    """
    web = settings.web
    listener = listen(web.host, web.port)
    try:
        origin = web.public_url or _loopback_origin(web.host, listener.getsockname()[1])
        opened = open_app(settings, folder, desk, client, data, origin, explain_engine, supervisor)
    except BaseException:
        listener.close()
        raise
    server = DeskServer(opened.app, listener, web.trusted_proxies)
    context: AppContext = opened.app.state.context
    watch = context.supervisor.start("desk-server", server.watch)

    def close() -> None:
        context.supervisor.stop(watch, CLOSE_SECONDS)
        server.close()
        opened.close()

    return ServedDesk(origin, opened.first_link, opened.app, close)


def open_app(
    settings: Settings,
    folder: Path,
    desk: DeskApi,
    client: redis.Redis,
    data: Path | None,
    origin: str,
    explain_engine: ExplainEngine | None = None,
    supervisor: Supervisor | None = None,
) -> DeskApp:
    """The desk for whoever serves it at `origin`; the rest as for `serve_desk`."""
    web = settings.web
    tune_interpreter()
    check_web_settings(web, origin)
    folder.mkdir(parents=True, exist_ok=True)
    secret = web.secret_key.get_secret_value().encode() if web.secret_key else _kept_key(folder / KEY_FILE)
    accounts = Accounts(folder / PEOPLE_FILE, time.time) if web.local_users else None
    fetcher = build_fetcher(settings)
    decoders = DecoderPool(DecodeLimits.of(settings.images), {}, settings.images)
    frame_decoders = DecoderPool(sheet_limits(settings.images), SHEET_VIEWS, settings.images)
    renderer = Renderer(
        fetcher,
        decoder=decoders,
        frame_decoder=frame_decoders,
        cache_bytes=web.cache_bytes,
        threads=web.decode_threads,
    )
    heat_maps = HeatMaps(
        renderer,
        (lambda: _own_explain_engine(settings)) if explain_engine is None else (lambda: explain_engine),
        (lambda own: own.engine.close()) if explain_engine is None else (lambda _: None),
        cache_bytes=web.cache_bytes // 4,
    )
    http = httpx.Client(timeout=OIDC_SECONDS, follow_redirects=False)
    read = past_verdicts.from_kafka(settings) if data is None else past_verdicts.from_embedded(settings, data)
    dead_letters = DeadLetters(settings, data, lambda: datetime.now(UTC))
    context = AppContext(
        origin=origin,
        desk=desk,
        sessions=Sessions(
            client,
            secret,
            time.time,
            lifetime_seconds=web.session_hours * 3600,
            idle_seconds=web.idle_minutes * 60,
        ),
        redis=client,
        accounts=accounts,
        oidc=OidcProvider(web.oidc, http, time.time) if web.oidc is not None else None,
        renderer=renderer,
        heat_maps=heat_maps,
        links=ImageLinks(secret, time.time),
        secret=secret,
        api_keys=web.api_keys,
        webhooks=settings.review.webhooks,
        policies=Policies(
            place_of(settings, data),
            {name: open_place(address, settings.s3) for name, address in settings.shadow_policies.items()},
            client,
            time.time,
            settings.images.provenance,
        ),
        intake=(
            intake_numbers.from_kafka(settings.kafka) if data is None else intake_numbers.from_embedded(settings, data)
        ),
        past_verdicts=PastVerdicts(read, time.monotonic),
        shown_verdicts=ShownVerdicts(),
        dead_letters=dead_letters,
        supervisor=supervisor or Supervisor(),
        labels=web.labels,
        lease_seconds=settings.review.lease_seconds,
        undo_seconds=settings.review.undo_seconds,
    )
    token = accounts.invite_first() if accounts is not None else None

    def close() -> None:
        dead_letters.close()
        heat_maps.close()
        http.close()
        fetcher.close()
        decoders.close()
        frame_decoders.close()
        if accounts is not None:
            accounts.close()

    return DeskApp(build_app(context), f"{origin}/#invitation={token}" if token else None, close)


def _own_explain_engine(settings: Settings) -> ExplainEngine:
    model = load_model(settings.model, settings.s3)
    return ExplainEngine(model, open_engine(settings, model))


def _loopback_origin(host: str, port: int) -> str:
    if host not in {"127.0.0.1", "localhost"}:
        raise DeskServerError(
            f"web.host {host} is reached from elsewhere, where passwords and images need encryption: set "
            "web.public_url to the https:// address of the proxy before the desk"
        )
    return f"http://{host}:{port}"


def check_web_settings(web: WebSettings, origin: str) -> None:
    """Raises DeskServerError where nobody could sign in, or passwords and images would travel in the clear."""
    if not web.local_users and web.oidc is None:
        raise DeskServerError("nobody could sign in: web.local_users is off and web.oidc is not set")
    parts = urlsplit(origin)
    if parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "localhost"}:
        raise DeskServerError(f"web.public_url {origin} must begin with https://; only loopback may do without")


def _kept_key(path: Path) -> bytes:
    """The key that signs links, made when there is none."""
    try:
        path.touch(mode=0o600)
        if not path.read_bytes():
            path.write_text(secrets.token_hex(32))
        return path.read_bytes()
    except OSError as error:
        raise DeskServerError(f"{path}: the desk's key cannot be kept: {error.strerror}; set web.secret_key") from error
