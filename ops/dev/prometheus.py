"""A real Prometheus on loopback that scrapes workers of this machine, with the rules that ship."""

import json
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ops.dev.ports import free_ports
from ops.dev.process import Server

RULES = Path(__file__).parents[1] / "prometheus" / "rules.yaml"


class PrometheusServer(Server):
    """Debian's Prometheus, which scrapes the loopback ports `targets` every second as the job `sluice`."""

    name = "prometheus"

    def __init__(self, directory: Path, targets: Sequence[int]) -> None:
        super().__init__(directory, free_ports(1))
        self._targets = targets
        self._config = self.directory / "prometheus.yaml"

    def prepare(self) -> None:
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {
                    "job_name": "sluice",
                    "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in self._targets]}],
                }
            ],
        }
        self._config.write_text(yaml.safe_dump(config))

    def command(self) -> Sequence[str]:
        return [
            "prometheus",
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self.data}",
            f"--web.listen-address=127.0.0.1:{self.ports[0]}",
        ]

    def answers(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[0]}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of the HTTP API's answer, such as that of `query`. Raises urllib.error.HTTPError for a bad query."""
        url = f"http://127.0.0.1:{self.ports[0]}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        """The values of an instant query."""
        return [float(sample["value"][1]) for sample in self.ask("query", query=expression)["result"]]
