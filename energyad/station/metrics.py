"""What Prometheus reads of a station, in its text format (version 0.0.4), on an address of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from energyad.errors import DataError, os_reason
from energyad.line.deliveries import OutputCounts
from energyad.station.config import MetricsConfig
from energyad.station.latency import LatencySummary

_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Reading:
    """What a station's metrics say at a moment.

    Attributes:
        verdicts: Parts of all runs by verdict.
        late: Of them, those over the budget.
        heartbeat: See `Status`.
        latency: Of this run; None before the first part.
        outputs: Deliveries of each output by state.
        drift: Of each view, whether its parts have drifted.
    """

    verdicts: dict[str, int]
    late: int
    heartbeat: int
    latency: LatencySummary | None
    outputs: list[OutputCounts]
    drift: dict[str, bool]


def text_of(reading: Reading) -> str:
    """Return a reading in Prometheus' text format."""
    lines = ["# HELP energyad_parts_total Parts by verdict.", "# TYPE energyad_parts_total counter"]
    lines += [f'energyad_parts_total{{verdict="{name}"}} {count}' for name, count in reading.verdicts.items()]
    lines += [
        "# HELP energyad_parts_late_total Parts whose verdict took longer than the budget.",
        "# TYPE energyad_parts_late_total counter",
        f"energyad_parts_late_total {reading.late}",
        "# HELP energyad_station_heartbeat Counts up while images are looked for.",
        "# TYPE energyad_station_heartbeat counter",
        f"energyad_station_heartbeat {reading.heartbeat}",
    ]
    if reading.latency is not None:
        latency = reading.latency
        lines += [
            "# HELP energyad_latency_seconds From trigger to verdict, of the latest 10,000 parts.",
            "# TYPE energyad_latency_seconds gauge",
            f'energyad_latency_seconds{{quantile="0.5"}} {latency.p50:.6f}',
            f'energyad_latency_seconds{{quantile="0.99"}} {latency.p99:.6f}',
            "# HELP energyad_latency_worst_seconds The longest since the start.",
            "# TYPE energyad_latency_worst_seconds gauge",
            f"energyad_latency_worst_seconds {latency.worst:.6f}",
        ]
    lines += ["# HELP energyad_deliveries Deliveries by state.", "# TYPE energyad_deliveries gauge"]
    for output in reading.outputs:
        for state, count in output.counts.items():
            address = _escaped(output.address)
            lines.append(
                f'energyad_deliveries{{output="{output.kind}",address="{address}",state="{state}"}} {count}'
            )
    lines += [
        "# HELP energyad_drift_shifted 1 where a view has drifted.",
        "# TYPE energyad_drift_shifted gauge",
    ]
    lines += [
        f'energyad_drift_shifted{{view="{view}"}} {int(is_so)}' for view, is_so in reading.drift.items()
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class MetricsServer:
    """Answers GET /metrics and GET /healthz.

    Args:
        config: Where to listen.
        read: Returns the reading of the moment.

    Raises:
        DataError: The port is taken.
    """

    def __init__(self, config: MetricsConfig, read: Callable[[], Reading]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, text_of(read()), _TYPE)
                elif self.path == "/healthz":
                    self._answer(200, "ok\n", "text/plain")
                else:
                    self._answer(404, "there are /metrics and /healthz\n", "text/plain")

            def _answer(self, status: int, text: str, kind: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer((config.host, config.port), Handler)
        except OSError as error:
            raise DataError(
                f"metrics: cannot listen on {config.host}:{config.port}: {os_reason(error)}; give another metrics.port"
            ) from error
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="energyad-metrics", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
