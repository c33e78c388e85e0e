"""`sluice desk serve`: the review desk without a worker."""

import threading
from contextlib import ExitStack, closing

from worker.cli.errors import UsageError
from worker.cli.extras import need
from worker.cli.options import ConfigOption, DataOption, find_place
from worker.cli.up import log_format, serving_desk, stopped_by_signals
from worker.supervision import Supervisor
from worker.telemetry.logs import configure_logging
from worker.telemetry.server import Health, TelemetryServer


def serve_command(config: ConfigOption = None, data: DataOption = None) -> None:
    """Serve the review desk without a worker, at web.host and web.port, until Ctrl-C or SIGTERM.

    With --config, local users and the signing key are stored in ./sluice-data. If telemetry.metrics_port is set,
    /metrics and /healthz are served there. The desk's own address has /healthz too.

    Exit code: 0 after it was stopped, 2 when it could not start.
    """
    if config is None and data is None:
        raise UsageError("say where the items are: --config FILE for Kafka and Redis, --data DIR for the embedded log")
    place = find_place(config, data)
    need("fastapi", *(["fakeredis"] if place.data is not None else []))
    telemetry = place.settings.telemetry
    stop = threading.Event()
    supervisor = Supervisor()

    def health() -> Health:
        reasons = tuple(supervisor.health_problems())
        return Health(healthy=not reasons, reasons=reasons)

    configure_logging(log_format(telemetry))
    with stopped_by_signals(stop), ExitStack() as open_:
        open_.enter_context(serving_desk(place, supervisor=supervisor))
        if telemetry.metrics_port is not None:
            server = TelemetryServer(telemetry.host, telemetry.metrics_port, supervisor.registry, health)
            open_.enter_context(closing(server))
        stop.wait()
