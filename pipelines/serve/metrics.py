"""The server's Prometheus metrics: their names, and their values in the text format.

Names are vLLM's with another prefix, so that its dashboards can be used. All have the label
`model_name`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from actors.messages import Measured
from actors.tally import Histogram

MEDIA = "text/plain; version=0.0.4; charset=utf-8"
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
# By label: the values of one series each.
Labelled = Mapping[str, float]
Value = float | Labelled | Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """`label`: what tells its series apart, besides the model."""

    kind: str
    told: str
    label: str | None = None


METRICS: dict[str, Metric] = {
    "paceline_num_requests_running": Metric(kind=GAUGE, told="Completions in a batch."),
    "paceline_num_requests_waiting": Metric(kind=GAUGE, told="Completions that wait for a place."),
    "paceline_kv_cache_usage_perc": Metric(
        kind=GAUGE, told="Share of KV cache blocks in use, 0 to 1, mean over target actors."
    ),
    "paceline_target_actors": Metric(kind=GAUGE, told="Target actors that take requests."),
    "paceline_draft_actors": Metric(kind=GAUGE, told="Draft actors that are up."),
    "paceline_prompt_tokens_total": Metric(
        kind=COUNTER, told="Prompt tokens of completions that ended by themselves."
    ),
    "paceline_generation_tokens_total": Metric(
        kind=COUNTER, told="Generated tokens of completions that ended by themselves."
    ),
    "paceline_request_success_total": Metric(
        kind=COUNTER, told="Completions that ended by themselves.", label="finished_reason"
    ),
    "paceline_request_errors_total": Metric(
        kind=COUNTER, told="Completions without an answer.", label="reason"
    ),
    "paceline_prefix_cache_queries_total": Metric(
        kind=COUNTER, told="Prompt tokens looked up in the KV cache."
    ),
    "paceline_prefix_cache_hits_total": Metric(
        kind=COUNTER, told="Prompt tokens found in the KV cache."
    ),
    "paceline_num_preemptions_total": Metric(
        kind=COUNTER, told="Completions that gave their KV cache to others and waited again."
    ),
    "paceline_target_passes_total": Metric(
        kind=COUNTER, told="Forward passes of the target after prefill."
    ),
    "paceline_spec_decode_num_drafts_total": Metric(kind=COUNTER, told="Drafts verified."),
    "paceline_spec_decode_num_draft_tokens_total": Metric(
        kind=COUNTER, told="Draft tokens verified."
    ),
    "paceline_spec_decode_num_accepted_tokens_total": Metric(
        kind=COUNTER, told="Draft tokens accepted."
    ),
    "paceline_spec_decode_num_accepted_tokens_per_pos_total": Metric(
        kind=COUNTER, told="Draft tokens accepted, by position in the draft.", label="position"
    ),
    "paceline_target_actor_deaths_total": Metric(
        kind=COUNTER, told="Target actors that ended and were replaced."
    ),
    "paceline_draft_actor_deaths_total": Metric(
        kind=COUNTER, told="Draft actors that ended and were replaced."
    ),
    "paceline_actor_death_timestamp_seconds": Metric(
        kind=GAUGE, told="When an actor died last, in Unix time; 0: none did.", label="role"
    ),
    "paceline_resumed_requests_total": Metric(
        kind=COUNTER, told="Completions that continued on another target actor."
    ),
    "paceline_replayed_tokens_total": Metric(
        kind=COUNTER, told="Tokens that resumed completions had streamed before."
    ),
    "paceline_learning_rows_total": Metric(
        kind=COUNTER, told="Completions that were recorded to learn from."
    ),
    "paceline_learning_rounds_total": Metric(
        kind=COUNTER, told="Trainings of the drafter that have ended.", label="outcome"
    ),
    "paceline_learning_accepted_length": Metric(
        kind=GAUGE,
        told="Tokens per round on held-out requests in the last training; 0 before the first.",
        label="drafter",
    ),
    "paceline_time_to_first_token_seconds": Metric(
        kind=HISTOGRAM, told="From a completion's arrival to its first token."
    ),
    "paceline_inter_token_latency_seconds": Metric(
        kind=HISTOGRAM, told="Between tokens; those of one step share its time."
    ),
    "paceline_e2e_request_latency_seconds": Metric(
        kind=HISTOGRAM, told="From a completion's arrival to its end."
    ),
}


def exposition(found: Mapping[str, Measured]) -> str:
    """All metrics in Prometheus' text format; `found` is by model."""
    values = {model: values_of(measured) for model, measured in found.items()}
    lines: list[str] = []
    for name, metric in METRICS.items():
        lines += [f"# HELP {name} {metric.told}", f"# TYPE {name} {metric.kind}"]
        for model, of_model in values.items():
            lines += _samples(name, metric, model, of_model[name])
    return "\n".join(lines) + "\n"


def values_of(measured: Measured) -> dict[str, Value]:
    """A value for each of METRICS."""
    counts, pool, figures = measured.counts, measured.pool, measured.pool.figures
    running = sum(load.running for load in measured.loads)
    usage = sum(load.cache_usage for load in measured.loads) / max(len(measured.loads), 1)
    success = ("stop", "length")
    errors = ("error", "cancelled", "rejected")
    accepted, learning = figures.accepted_by_position, measured.learning
    values: dict[str, Value] = {
        "num_requests_running": running,
        "num_requests_waiting": max(measured.queued - running, 0),
        "kv_cache_usage_perc": usage,
        "target_actors": pool.target_actors,
        "draft_actors": pool.draft_actors,
        "prompt_tokens_total": counts.prompt_tokens,
        "generation_tokens_total": counts.generation_tokens,
        "request_success_total": {each: counts.ended[each] for each in success},
        "request_errors_total": {each: counts.ended[each] for each in errors},
        "prefix_cache_queries_total": figures.prompt_tokens + figures.prefix_hit_tokens,
        "prefix_cache_hits_total": figures.prefix_hit_tokens,
        "num_preemptions_total": figures.preemptions,
        "target_passes_total": figures.target_passes,
        "spec_decode_num_drafts_total": (figures.drafted_by_position or (0,))[0],
        "spec_decode_num_draft_tokens_total": figures.drafted,
        "spec_decode_num_accepted_tokens_total": figures.accepted,
        "spec_decode_num_accepted_tokens_per_pos_total": {
            str(position): count for position, count in enumerate(accepted)
        },
        "target_actor_deaths_total": pool.target_deaths,
        "draft_actor_deaths_total": pool.draft_deaths,
        "actor_death_timestamp_seconds": {"target": pool.target_died, "draft": pool.draft_died},
        "resumed_requests_total": pool.resumed,
        "replayed_tokens_total": pool.replayed,
        "learning_rows_total": learning.rows,
        "learning_rounds_total": {
            "better": learning.better,
            "no_better": learning.no_better,
            "failed": learning.failed,
        },
        "learning_accepted_length": {
            "present": learning.present_length,
            "new": learning.new_length,
        },
        "time_to_first_token_seconds": counts.first_token_s,
        "inter_token_latency_seconds": counts.between_tokens_s,
        "e2e_request_latency_seconds": counts.request_s,
    }
    return {f"paceline_{name}": value for name, value in values.items()}


def _samples(name: str, metric: Metric, model: str, value: Value) -> Iterator[str]:
    labels = {"model_name": model}
    if isinstance(value, Histogram):
        yield from _buckets(name, labels, value)
    elif isinstance(value, Mapping):
        for key, number in value.items():
            yield _line(name, {**labels, str(metric.label): key}, number)
    else:
        yield _line(name, labels, value)


def _buckets(name: str, labels: Mapping[str, str], histogram: Histogram) -> Iterator[str]:
    below = 0
    bounds = [*map(str, histogram.bounds), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        below += count
        yield _line(f"{name}_bucket", {**labels, "le": bound}, below)
    yield _line(f"{name}_sum", labels, histogram.total)
    yield _line(f"{name}_count", labels, below)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{told}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def names() -> Iterable[str]:
    """All names that queries may use, those of the series of histograms included."""
    for name, metric in METRICS.items():
        if metric.kind == HISTOGRAM:
            yield from (f"{name}_{part}" for part in ("bucket", "sum", "count"))
        else:
            yield name
