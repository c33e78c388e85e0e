"""`make servers` and `make servers-stop`: Kafka, Redis and S3 on loopback for a person who tries Sluice.

Everything lives below one folder: data, logs, servers.json (process ids and ports), dev.yaml (a settings file for them)
and dev.env (the S3 credentials as AWS_ variables).
"""

import argparse
import sys
from pathlib import Path
from typing import TypeVar

import yaml

from ops.dev.process import Server, ServerError
from ops.dev.servers import KafkaServer, RedisServer, S3Server
from ops.dev.state import State

ROOT = Path(__file__).parents[2]
BUCKET = "images"

AnyServer = TypeVar("AnyServer", bound=Server)


def start(folder: Path) -> None:
    """Starts what does not run yet, on the ports it had before, and writes the settings. Raises ServerError."""
    folder.mkdir(exist_ok=True)
    state = State(folder)
    kafka = _up(state, KafkaServer(folder / "kafka", state.ports("kafka", 9092, 1), detached=True))
    redis = _up(state, RedisServer(folder / "redis", state.ports("redis", 6379, 0), detached=True))
    s3_ports = state.ports("s3", 8333, 4)
    s3 = _up(state, S3Server(folder / "s3", s3_ports, credentials=state.credentials(), detached=True))
    s3.ensure_bucket(BUCKET)
    _write_settings(folder / "dev.yaml", kafka, redis, s3)
    _write_credentials(folder / "dev.env", s3)
    addresses = {"kafka": kafka.bootstrap_servers, "redis": redis.url, "s3": s3.endpoint}
    print(_WELCOME.format(**addresses, bucket=BUCKET, folder=_shown(folder)))


def stop(folder: Path) -> None:
    """Stops what `start` has started; the data stays."""
    ended = State(folder).end_all()
    for name, ran in ended.items():
        print(f"{name} {'stopped' if ran else 'had ended already'}")
    if not ended:
        print("no servers run")


def _up(state: State, server: AnyServer) -> AnyServer:
    if not state.runs(server.name):
        print(f"starting {server.name} ...", flush=True)
        server.start()
        state.started(server)
        return server
    try:
        server.answers()
    except Exception as error:
        raise ServerError(f"{server.name} runs but does not answer ({error}): see {server.log}") from error
    print(f"{server.name} runs already")
    return server


def _write_settings(path: Path, kafka: KafkaServer, redis: RedisServer, s3: S3Server) -> None:
    topics = {
        "images": "images.in",
        "verdicts": "images.verdicts",
        "review": "images.review",
        "dead": "images.dead",
    }
    settings = {
        "model": "mst-lite",
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "group_id": "sluice", "topics": topics},
        "redis": {"url": redis.url},
        "s3": {"endpoint_url": s3.endpoint, "region": s3.region, "addressing_style": "path"},
        "files": {"roots": [str(ROOT / "worker" / "samples")]},
        "telemetry": {"log_format": "console"},
    }
    path.write_text(f"# Written by `make servers`.\n{yaml.safe_dump(settings, sort_keys=False)}")


def _write_credentials(path: Path, s3: S3Server) -> None:
    path.touch(mode=0o600)
    path.write_text(
        f"AWS_ACCESS_KEY_ID={s3.access_key}\nAWS_SECRET_ACCESS_KEY={s3.secret_key}\nAWS_DEFAULT_REGION={s3.region}\n"
    )


def _shown(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


_WELCOME = """
  Kafka  {kafka}
  Redis  {redis}
  S3     {s3}   bucket: {bucket}

Their settings are in {folder}/dev.yaml, the S3 credentials in {folder}/dev.env, data and logs beside them. Now:

  set -a; . {folder}/dev.env; set +a
  .venv/bin/sluice topics create --config {folder}/dev.yaml
  .venv/bin/sluice submit worker/samples/images --config {folder}/dev.yaml
  .venv/bin/sluice up --config {folder}/dev.yaml        # judges them until Ctrl-C
  .venv/bin/sluice tail --config {folder}/dev.yaml      # in a second terminal

`make servers-stop` ends them, and `rm -rf {folder}` then forgets everything."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.dev", description="Start or stop servers for development.")
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("--folder", type=Path, default=ROOT / ".run", help="where data and settings go (default: .run)")
    options = parser.parse_args()
    act = start if options.action == "start" else stop
    try:
        act(options.folder.resolve())
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        print(f"To begin afresh: make servers-stop, then rm -rf {_shown(options.folder.resolve())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
