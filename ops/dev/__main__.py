"""`make servers` and `make servers-stop`: Kafka, Redis and S3 on loopback for a person who tries Sluice.

Everything lives below .run/: data, logs, servers.json (process ids and ports), dev.yaml (a settings file for them) and
dev.env (the S3 credentials as AWS_ variables).
"""

import argparse
import contextlib
import json
import secrets
import sys
from pathlib import Path
from typing import Any

import yaml

from ops.dev.pids import birth, end
from ops.dev.ports import free_ports, is_free
from ops.dev.process import ServerError
from ops.dev.servers import KafkaServer, RedisServer, S3Server

ROOT = Path(__file__).parents[2]
RUN = ROOT / ".run"
STATE = RUN / "servers.json"
SETTINGS = RUN / "dev.yaml"
CREDENTIALS = RUN / "dev.env"
BUCKET = "images"


def start() -> None:
    """Starts what does not run yet, on the ports it had before, and writes the settings. Raises ServerError."""
    state = _read_state()
    s3_state = state.setdefault("s3", {})
    s3_state.setdefault("credentials", ["sluice-dev", secrets.token_hex(20)])
    kafka = KafkaServer(RUN / "kafka", _ports(state, "kafka", 9092, 1), detached=True)
    redis = RedisServer(RUN / "redis", _ports(state, "redis", 6379, 0), detached=True)
    access_key, secret_key = s3_state["credentials"]
    s3 = S3Server(RUN / "s3", _ports(state, "s3", 8333, 4), credentials=(access_key, secret_key), detached=True)
    for server in (kafka, redis, s3):
        if _runs(state[server.name]):
            print(f"{server.name} runs already")
            continue
        for port in state[server.name]["ports"]:
            if not is_free(port):
                raise ServerError(
                    f"{server.name} needs its port {port}, but another program listens there: end that one"
                )
        print(f"starting {server.name} ...", flush=True)
        server.start()
        state[server.name] |= {"pid": server.pid, "born": birth(server.pid or 0)}
        _write_state(state)
    client = s3.client()
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.create_bucket(Bucket=BUCKET)
    _write_settings(kafka, redis, s3)
    print(_WELCOME.format(kafka=kafka.bootstrap_servers, redis=redis.url, s3=s3.endpoint, bucket=BUCKET))


def stop() -> None:
    """Stops what `start` has started; the data stays."""
    state = _read_state()
    for name, server in state.items():
        ended = "pid" in server and end(server.pop("pid"), server.pop("born"))
        print(f"{name} {'stopped' if ended else 'was not running'}")
    _write_state(state)


def _runs(server: dict[str, Any]) -> bool:
    return "pid" in server and birth(server["pid"]) == server["born"]


def _ports(state: dict[str, Any], name: str, known_by: int, others: int) -> list[int]:
    """The server's ports, chosen once: Kafka and SeaweedFS remember theirs in their data."""
    server = state.setdefault(name, {})
    if "ports" not in server:
        wanted_is_free = is_free(known_by) and is_free(known_by + 10_000)
        chosen = free_ports(1 + others)
        server["ports"] = [known_by if wanted_is_free else chosen[0], *chosen[1:]]
    ports: list[int] = server["ports"]
    return ports


def _read_state() -> dict[str, Any]:
    if not STATE.exists():
        return {}
    try:
        state: dict[str, Any] = json.loads(STATE.read_text())
    except ValueError as error:
        raise ServerError(f"{STATE} is not JSON ({error}): end the servers by hand, then remove {RUN}") from error
    return state


def _write_state(state: dict[str, Any]) -> None:
    RUN.mkdir(exist_ok=True)
    scratch = STATE.with_suffix(".new")
    scratch.touch(mode=0o600)
    scratch.write_text(json.dumps(state, indent=2) + "\n")
    scratch.replace(STATE)


def _write_settings(kafka: KafkaServer, redis: RedisServer, s3: S3Server) -> None:
    settings = {
        "model": "mst-lite",
        "kafka": {
            "bootstrap_servers": kafka.bootstrap_servers,
            "group_id": "sluice",
            "topics": {
                "images": "images.in",
                "verdicts": "images.verdicts",
                "review": "images.review",
                "dead": "images.dead",
            },
        },
        "redis": {"url": redis.url},
        "s3": {"endpoint_url": s3.endpoint, "region": s3.region, "addressing_style": "path"},
        "files": {"roots": [str(ROOT / "worker" / "demo" / "samples")]},
        "telemetry": {"log_format": "console"},
    }
    SETTINGS.write_text(f"# Written by `make servers`.\n{yaml.safe_dump(settings, sort_keys=False)}")
    CREDENTIALS.touch(mode=0o600)
    CREDENTIALS.write_text(
        f"AWS_ACCESS_KEY_ID={s3.access_key}\nAWS_SECRET_ACCESS_KEY={s3.secret_key}\nAWS_DEFAULT_REGION={s3.region}\n"
    )


_WELCOME = """
  Kafka  {kafka}
  Redis  {redis}
  S3     {s3}   bucket: {bucket}

Their settings are in .run/dev.yaml, the S3 credentials in .run/dev.env, data and logs beside them. Now:

  set -a; . .run/dev.env; set +a
  .venv/bin/sluice topics create --config .run/dev.yaml
  .venv/bin/sluice submit worker/demo/samples/images --config .run/dev.yaml
  .venv/bin/sluice up --config .run/dev.yaml        # judges them until Ctrl-C
  .venv/bin/sluice tail --config .run/dev.yaml      # in a second terminal

`make servers-stop` ends them, and `rm -rf .run` then forgets everything."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.dev", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["start", "stop"])
    try:
        start() if parser.parse_args().action == "start" else stop()
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
