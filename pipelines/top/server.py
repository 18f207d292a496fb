"""What a server's metrics say, as lines of text."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from models.errors import InvalidOption
from pipelines.top import PLACE

TIMEOUT_S = 5.0
BAR = 20  # characters
# Of the metrics in pipelines/serve/metrics.py, those that are shown.
RUNNING, WAITING = "paceline_num_requests_running", "paceline_num_requests_waiting"
USAGE = "paceline_kv_cache_usage_perc"
TARGETS, DRAFTS = "paceline_target_actors", "paceline_draft_actors"
TOKENS, PROMPTS = "paceline_generation_tokens_total", "paceline_prompt_tokens_total"
SUCCESS, ERRORS = "paceline_request_success_total", "paceline_request_errors_total"
DRAFTED = "paceline_spec_decode_num_draft_tokens_total"
ROUNDS = "paceline_spec_decode_num_drafts_total"
ACCEPTED = "paceline_spec_decode_num_accepted_tokens_total"
HITS, QUERIES = "paceline_prefix_cache_hits_total", "paceline_prefix_cache_queries_total"
DEATHS, RESUMED = "paceline_target_actor_deaths_total", "paceline_resumed_requests_total"
DRAFT_DEATHS = "paceline_draft_actor_deaths_total"
DIED, ROLE = "paceline_actor_death_timestamp_seconds", "role"
PREEMPTIONS = "paceline_num_preemptions_total"
SHOWN = (
    *(RUNNING, WAITING, USAGE, TARGETS, DRAFTS, TOKENS, PROMPTS, SUCCESS, ERRORS, DRAFTED),
    *(ROUNDS, ACCEPTED, HITS, QUERIES, DEATHS, DRAFT_DEATHS, DIED, RESUMED, PREEMPTIONS),
)
MODEL = "model_name"
KINDS = {"target": DEATHS, "draft": DRAFT_DEATHS}  # the counters, by role


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`models`: the sums of each model's series, by metric; of all of them by `sample[metric]`.

    `died`: by role, when an actor of any model died last, in Unix seconds. `at`: seconds of a clock
    that never jumps.
    """

    at: float
    models: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    died: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return sum(values.get(name, 0.0) for values in self.models.values())

    def of(self, model: str) -> "Sample":
        """One model's alone."""
        return Sample(at=self.at, models={model: self.models.get(model, {})})


def read_metrics(url: str, key: str | None) -> str:
    """The text of a server's /metrics.

    Raises InvalidOption: it does not answer, or wants another key.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{url.rstrip('/')}/metrics", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            text: str = answer.read().decode()
            list(text_string_to_metric_families(text))  # a ValueError if it is something else
            return text
    except urllib.error.HTTPError as error:
        hint = "set PACELINE_API_KEY to one of its keys" if error.code == 401 else error.reason
        raise InvalidOption(PLACE, url, f"it answers {error.code}: {hint}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InvalidOption(PLACE, url, f"no server of ours answers there: {reason}") from error


def sample(text: str, at: float) -> Sample:
    """The values in Prometheus' text format."""
    models: dict[str, dict[str, float]] = {}
    died: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            if each.name == DIED:
                role = each.labels[ROLE]
                died[role] = max(died.get(role, 0.0), each.value)
            elif MODEL in each.labels:
                values = models.setdefault(each.labels[MODEL], {})
                values[each.name] = values.get(each.name, 0.0) + each.value
    return Sample(at=at, models=models, died=died)


def lines(now: Sample, before: Sample | None) -> Iterator[str]:
    """The view; rates are over the time since the sample before, or unknown.

    Shares are of one model; where there are several, each has a line.
    """
    yield f"actors     {now[TARGETS]:.0f} target, {now[DRAFTS]:.0f} draft"
    continued = f"; {now[RESUMED]:.0f} completions continued elsewhere" if now[DEATHS] else ""
    dead = ", ".join(_dead(now, role, name) for role, name in KINDS.items())
    yield f"deaths     {dead}{continued}"
    yield f"running    {now[RUNNING]:.0f} completions, {now[WAITING]:.0f} wait"
    yield f"tokens     {_rate(TOKENS, now, before)} generated, {_rate(PROMPTS, now, before)} read"
    yield f"drafts     {_accepted(now, before)}"
    if len(now.models) == 1:
        yield f"KV blocks  {_used(now)}"
    asked = now[QUERIES]
    yield f"prefixes   {now[HITS] / asked if asked else 0:.0%} of prompt tokens were known"
    yield f"ended      {now[SUCCESS]:.0f} well, {now[ERRORS]:.0f} without an answer"
    if len(now.models) > 1:
        yield from _of_each(now, before)


def _of_each(now: Sample, before: Sample | None) -> Iterator[str]:
    """A line for each model."""
    width = max(map(len, now.models))
    for name in now.models:
        own, earlier = now.of(name), None if before is None else before.of(name)
        running = f"{own[RUNNING]:.0f} running, {own[WAITING]:.0f} wait"
        spoken = f"{_rate(TOKENS, own, earlier)} generated"
        yield f"{name:<{width}}  {_used(own)}; {running}; {spoken}"


def _dead(now: Sample, role: str, name: str) -> str:
    died = now.died.get(role, 0.0)
    last = time.strftime(" (last at %Y-%m-%d %H:%M:%S)", time.localtime(died)) if died else ""
    return f"{now[name]:.0f} {role} actors{last}"


def _used(now: Sample) -> str:
    return f"{_bar(now[USAGE])} {now[USAGE]:.0%} in use, {now[PREEMPTIONS]:.0f} gave way"


def _accepted(now: Sample, before: Sample | None) -> str:
    since = before if before is not None and now[ROUNDS] > before[ROUNDS] else Sample(at=0.0)
    rounds = now[ROUNDS] - since[ROUNDS]
    drafted, accepted = now[DRAFTED] - since[DRAFTED], now[ACCEPTED] - since[ACCEPTED]
    if rounds <= 0 or drafted <= 0:
        return "none"
    return (
        f"{accepted / drafted:.0%} of tokens accepted, {1 + accepted / rounds:.2f} tokens a round"
    )


def _rate(name: str, now: Sample, before: Sample | None) -> str:
    if before is None or now.at <= before.at:
        return f"{now[name]:,.0f}"
    return f"{max(0.0, now[name] - before[name]) / (now.at - before.at):,.1f}/s"


def _bar(share: float) -> str:
    full = round(min(max(share, 0.0), 1.0) * BAR)
    return "[" + "#" * full + "." * (BAR - full) + "]"
