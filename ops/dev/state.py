"""What `make servers` remembers between its runs: ports, process ids, credentials."""

import json
import secrets
from pathlib import Path
from typing import Any

from ops.dev.pids import birth, end
from ops.dev.ports import free_ports, is_free
from ops.dev.process import Server, ServerError


class State:
    """`servers.json` below a folder. Raises ServerError when it is not what was written."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "servers.json"
        self._servers: dict[str, dict[str, Any]] = {}
        if not self._file.exists():
            return
        try:
            self._servers = json.loads(self._file.read_text())
        except ValueError as error:
            raise ServerError(f"{self._file} is not JSON ({error}): end the servers by hand, then remove it") from error

    def ports(self, name: str, known_by: int, others: int) -> list[int]:
        """The server's ports, chosen once, for Kafka and SeaweedFS remember theirs in their data: the one it is known
        by where that is free, and `others`."""
        server = self._servers.setdefault(name, {})
        if "ports" not in server:
            first, *rest = free_ports(1 + others)
            server["ports"] = [known_by if is_free(known_by) and is_free(known_by + 10_000) else first, *rest]
        ports: list[int] = server["ports"]
        return ports

    def credentials(self) -> tuple[str, str]:
        """S3's access key and secret, made once."""
        server = self._servers.setdefault("s3", {})
        access_key, secret_key = server.setdefault("credentials", ["sluice-dev", secrets.token_hex(20)])
        return access_key, secret_key

    def runs(self, name: str) -> bool:
        """Whether the process that was started as this server lives."""
        server = self._servers.get(name, {})
        return "pid" in server and birth(server["pid"]) == server["born"]

    def started(self, server: Server) -> None:
        """Remembers a server's process."""
        assert server.pid is not None
        self._servers[server.name] |= {"pid": server.pid, "born": birth(server.pid)}
        self._save()

    def end_all(self) -> dict[str, bool]:
        """Ends every process; tells by name which of them still ran."""
        ended = {name: end(server["pid"], server["born"]) for name, server in self._servers.items() if "pid" in server}
        for server in self._servers.values():
            server.pop("pid", None)
            server.pop("born", None)
        self._save()
        return ended

    def _save(self) -> None:
        if not self._servers:
            return
        scratch = self._file.with_suffix(".new")
        scratch.touch(mode=0o600)
        scratch.write_text(json.dumps(self._servers, indent=2) + "\n")
        scratch.replace(self._file)
