"""The panels of the dashboards, with their queries. `$job` is chosen on the dashboard."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["time series", "stat"]


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """A PromQL expression and the names of its lines."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """`unit` is one of Grafana's: `s`, `short`, `percentunit`, `reqps`, `bytes`. `description` says how to read it."""

    title: str
    description: str
    unit: str
    queries: tuple[PanelQuery, ...]
    kind: Kind = "time series"
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class DashboardSpec:
    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    """The name of each row, with its panels."""


_SLOW = (
    '1 - sum(rate(sluice_stage_seconds_bucket{{job=~"$job",stage="total",le="60.0"}}[{window}]))'
    ' / sum(rate(sluice_stage_seconds_count{{job=~"$job",stage="total"}}[{window}]))'
)


def _quantile(stage: str, share: float, window: str = "5m") -> PanelQuery:
    buckets = f'sum by (le) (rate(sluice_stage_seconds_bucket{{job=~"$job",stage="{stage}"}}[{window}]))'
    return PanelQuery(f"histogram_quantile({share}, {buckets})", f"p{share * 100:g}")


def _age_quantile(share: float) -> PanelQuery:
    buckets = 'sum by (le) (rate(sluice_verdict_age_seconds_bucket{job=~"$job"}[5m]))'
    return PanelQuery(f"histogram_quantile({share}, {buckets})", f"p{share * 100:g}")


def _share_of_capacity(stages: str, resource: str, legend: str) -> PanelQuery:
    """Seconds spent in the stages per second, by how many of them can be under way."""
    busy = f'sum(rate(sluice_stage_seconds_sum{{job=~"$job",stage=~"{stages}"}}[5m]))'
    return PanelQuery(f'{busy} / sum(sluice_capacity{{job=~"$job",of="{resource}"}})', legend)


def _mean_quality(label: str) -> str:
    of = f'sum by ({label}) (rate(sluice_cell_quality_{{part}}{{{{job=~"$job"}}}}[1h]))'
    return f"{of.format(part='sum')} / {of.format(part='count')}"


OVERVIEW = DashboardSpec(
    "sluice-overview",
    "Sluice: overview",
    (
        (
            "Health",
            (
                Panel(
                    "Workers",
                    "Workers that Prometheus reaches.",
                    "short",
                    (PanelQuery('sum(up{job=~"$job"})'),),
                    "stat",
                ),
                Panel(
                    "Behind",
                    "Records between the read position and the end of the images topic.",
                    "short",
                    (PanelQuery('sum(sluice_consumer_lag_records{job=~"$job"})'),),
                    "stat",
                ),
                Panel(
                    "Slow verdicts, last hour",
                    "Events whose verdict took more than 60 s. The objective is at most 0.1 %.",
                    "percentunit",
                    (PanelQuery(_SLOW.format(window="1h")),),
                    "stat",
                ),
                Panel(
                    "Breakers open",
                    "Workers whose engine or S3 bucket is down.",
                    "short",
                    (PanelQuery('sum(sluice_breaker_open{job=~"$job"})'),),
                    "stat",
                ),
            ),
        ),
        (
            "Tenants and generators",
            (
                Panel(
                    "Images by generator",
                    "As senders name it. `other`: generators beyond the largest `telemetry.top_generators`.",
                    "reqps",
                    (
                        PanelQuery(
                            'sum by (generator) (rate(sluice_cell_routes_total{job=~"$job"}[5m]))', "{{generator}}"
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Mean quality by generator",
                    "In an hour. A step in one line means that this generator's images changed.",
                    "short",
                    (PanelQuery(_mean_quality("generator"), "{{generator}}"),),
                ),
                Panel(
                    "Mean quality by tenant",
                    "In an hour. A step in one line means that this tenant sends other images.",
                    "short",
                    (PanelQuery(_mean_quality("tenant"), "{{tenant}}"),),
                ),
                Panel(
                    "Not passed, by tenant",
                    "The share of a tenant's images that went to review or was rejected.",
                    "percentunit",
                    (
                        PanelQuery(
                            'sum by (tenant) (rate(sluice_cell_routes_total{job=~"$job",action!="pass"}[1h]))'
                            ' / sum by (tenant) (rate(sluice_cell_routes_total{job=~"$job"}[1h]))',
                            "{{tenant}}",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Output",
            (
                Panel(
                    "Events by outcome",
                    "`cached` events were scored before; `failed` events are dead letters and go to review.",
                    "reqps",
                    (PanelQuery('sum by (outcome) (rate(sluice_events_total{job=~"$job"}[5m]))', "{{outcome}}"),),
                    stacked=True,
                ),
                Panel(
                    "Verdicts by route",
                    "The policy's decisions. A sudden change means a new policy, a new model or different images.",
                    "reqps",
                    (
                        PanelQuery(
                            'sum by (action, queue) (rate(sluice_routes_total{job=~"$job"}[5m]))',
                            "{{action}} {{queue}}",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Images for overloaded review queues",
                    "Verdicts while their queue holds more than its capacity in the policy, by where the image went.",
                    "reqps",
                    (
                        PanelQuery(
                            'sum by (queue, mode, route) (rate(sluice_overload_routes_total{job=~"$job"}[5m]))'
                            " or on() vector(0)",
                            "{{queue}} {{mode}} {{route}}",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Time to verdict",
                    "From reading the record to the verdict, including waiting.",
                    "s",
                    (_quantile("total", 0.5), _quantile("total", 0.95), _quantile("total", 0.99)),
                ),
                Panel(
                    "Age of events at their verdict",
                    "From the event's first record in Kafka, including waiting in any topic.",
                    "s",
                    (_age_quantile(0.5), _age_quantile(0.95), _age_quantile(0.99)),
                ),
                Panel(
                    "Events by tenant",
                    "The largest tenants; `other` is all others together.",
                    "reqps",
                    (PanelQuery('sum by (tenant) (rate(sluice_tenant_events_total{job=~"$job"}[5m]))', "{{tenant}}"),),
                    stacked=True,
                ),
                Panel(
                    "Dead letters by reason",
                    "Events that could not be judged.",
                    "reqps",
                    (PanelQuery('sum by (reason) (rate(sluice_dead_letters_total{job=~"$job"}[5m]))', "{{reason}}"),),
                    stacked=True,
                ),
            ),
        ),
    ),
)

STREAM = DashboardSpec(
    "sluice-stream",
    "Sluice: stream and engine",
    (
        (
            "Kafka",
            (
                Panel(
                    "Lag by partition",
                    "One partition that grows while others do not is stuck.",
                    "short",
                    (
                        PanelQuery(
                            'sum by (topic, partition) (sluice_consumer_lag_records{job=~"$job"})',
                            "{{topic}}/{{partition}}",
                        ),
                    ),
                ),
                Panel(
                    "Records read and in flight",
                    "In flight: read and not committed yet.",
                    "short",
                    (
                        PanelQuery('sum(rate(sluice_records_polled_total{job=~"$job"}[5m]))', "read a second"),
                        PanelQuery('sum(sluice_records_in_flight{job=~"$job"})', "in flight"),
                    ),
                ),
                Panel(
                    "Failed commits and rebalances",
                    "In five minutes. Rebalances are expected when workers come and go.",
                    "short",
                    (
                        PanelQuery('sum(increase(sluice_commit_failures_total{job=~"$job"}[5m]))', "failed commits"),
                        PanelQuery('sum(increase(sluice_rebalances_total{job=~"$job"}[5m]))', "rebalances"),
                    ),
                ),
                Panel(
                    "Paused partitions",
                    "Partitions that are not being read, because too much is in flight or a breaker is open.",
                    "short",
                    (PanelQuery('sum by (instance) (sluice_partitions_paused{job=~"$job"})', "{{instance}}"),),
                ),
                Panel(
                    "Events that wait for their image",
                    "Events moved to a retry topic, and records of retry topics that were read and are not due.",
                    "short",
                    (
                        PanelQuery(
                            'sum by (topic) (increase(sluice_events_deferred_total{job=~"$job"}[5m]))',
                            "moved to {{topic}} in 5 min",
                        ),
                        PanelQuery('sum(sluice_records_not_due{job=~"$job"})', "not due"),
                    ),
                ),
            ),
        ),
        (
            "Stages",
            (
                Panel(
                    "Seconds in each stage, p95",
                    "`total` includes the waiting between the stages.",
                    "s",
                    (
                        PanelQuery(
                            "histogram_quantile(0.95, sum by (stage, le) "
                            '(rate(sluice_stage_seconds_bucket{job=~"$job"}[5m])))',
                            "{{stage}}",
                        ),
                    ),
                ),
                Panel(
                    "Busy threads by stage",
                    "Seconds spent in a stage per second: how many threads are busy with it on average.",
                    "short",
                    (
                        PanelQuery(
                            'sum by (stage) (rate(sluice_stage_seconds_sum{job=~"$job",stage!="total"}[5m]))',
                            "{{stage}}",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Retries by cause",
                    "Failed attempts that will be retried.",
                    "reqps",
                    (
                        PanelQuery(
                            'sum by (reason) (rate(sluice_retries_total{job=~"$job"}[5m])) or vector(0)', "{{reason}}"
                        ),
                    ),
                ),
                Panel(
                    "Failed fetches by store",
                    "Attempts that the store did not answer or denied; the stores with the most, and `other`.",
                    "reqps",
                    (
                        PanelQuery(
                            'sum by (store) (rate(sluice_fetch_failures_total{job=~"$job"}[5m])) or vector(0)',
                            "{{store}}",
                        ),
                    ),
                ),
                Panel(
                    "Stores that are down",
                    "Image stores that do not answer or deny every request, with the number of workers that report it.",
                    "short",
                    (PanelQuery('sum by (store) (sluice_store_down{job=~"$job"}) or vector(0)', "{{store}}"),),
                ),
                Panel(
                    "Cache hits",
                    "Share of cache lookups that saved a fetch (`alias`) or an engine call (`score`).",
                    "percentunit",
                    (
                        PanelQuery(
                            'sum by (kind) (rate(sluice_cache_requests_total{job=~"$job",result="hit"}[5m])) '
                            '/ (sum by (kind) (rate(sluice_cache_requests_total{job=~"$job"}[5m])) > 0)',
                            "{{kind}}",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Engine and process",
            (
                Panel(
                    "Engine time a batch",
                    "Median and p95 of one batch.",
                    "s",
                    (_quantile("engine", 0.5), _quantile("engine", 0.95)),
                ),
                Panel(
                    "How full batches are",
                    "Images in a batch, relative to the maximum. Near 100 %, the engine is the bottleneck.",
                    "percentunit",
                    (
                        PanelQuery(
                            'sum(rate(sluice_batch_size_sum{job=~"$job"}[5m])) '
                            '/ (sum(rate(sluice_batch_size_count{job=~"$job"}[5m])) > 0) '
                            '/ avg(sluice_capacity{job=~"$job",of="batch_images"})',
                            "mean",
                        ),
                    ),
                ),
                Panel(
                    "How busy the engine and the threads are",
                    "Share of the engine's batches, and of the threads that fetch and decode, in use.",
                    "percentunit",
                    (
                        _share_of_capacity("engine", "batches", "engine"),
                        _share_of_capacity("fetch|decode", "prepare_threads", "fetching and decoding threads"),
                    ),
                ),
                Panel(
                    "Memory",
                    "Resident memory of each worker, and the bytes of records in flight.",
                    "bytes",
                    (
                        PanelQuery('process_resident_memory_bytes{job=~"$job"}', "{{instance}} resident"),
                        PanelQuery('sluice_bytes_in_flight{job=~"$job"}', "{{instance}} in flight"),
                    ),
                ),
                Panel(
                    "Processors",
                    "CPU seconds per second.",
                    "short",
                    (PanelQuery('rate(process_cpu_seconds_total{job=~"$job"}[5m])', "{{instance}}"),),
                ),
            ),
        ),
    ),
)

DASHBOARDS = (OVERVIEW, STREAM)
