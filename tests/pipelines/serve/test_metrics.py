"""Metrics: the list is complete, Prometheus' own parser reads them, and docs/serve.md has them."""

from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from actors.messages import Measured, PoolState
from actors.tally import Counts
from models.loop.figures import Figures
from models.loop.load import Load
from models.requests.request import Result
from pipelines.serve.answers.answer import speculation
from pipelines.serve.metrics import COUNTER, METRICS, exposition, names, values_of

FIGURES = Figures(
    target_passes=9,
    prompt_tokens=20,
    prefix_hit_tokens=5,
    drafted=12,
    accepted=7,
    drafted_by_position=(4, 3),
    accepted_by_position=(4, 3),
)


def measured() -> Measured:
    counts = Counts(prompt_tokens=11, generation_tokens=13, ended=Counter(stop=2, cancelled=1))
    counts.first_token_s.add(0.02)
    counts.first_token_s.add(100.0)
    pool = PoolState(figures=FIGURES, target_actors=2, draft_actors=1, resumed=3)
    loads = (Load(running=2, waiting=1, cache_usage=0.5), Load(running=1, cache_usage=0.25))
    return Measured(counts=counts, pool=pool, loads=loads, queued=5)


def samples() -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(exposition({'a"b': measured()}))
    found = {}
    for family in families:
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("model_name") == 'a"b'
            found[(sample.name, *labels.values())] = sample.value
    return found


def test_every_metric_has_a_value_and_no_value_is_unlisted() -> None:
    assert list(values_of(measured())) == list(METRICS)
    assert {name for name, *_ in samples()} == set(names())
    assert all(name.endswith("_total") == (m.kind == COUNTER) for name, m in METRICS.items())


def test_values_are_what_was_measured() -> None:
    found = samples()
    assert found[("paceline_num_requests_running",)] == 3
    assert found[("paceline_num_requests_waiting",)] == 2
    assert found[("paceline_kv_cache_usage_perc",)] == 0.375
    assert found[("paceline_request_success_total", "stop")] == 2
    assert found[("paceline_request_errors_total", "cancelled")] == 1
    assert found[("paceline_prefix_cache_queries_total",)] == 25
    assert found[("paceline_spec_decode_num_drafts_total",)] == 4
    assert found[("paceline_spec_decode_num_accepted_tokens_per_pos_total", "1")] == 3
    bucket = "paceline_time_to_first_token_seconds_bucket"
    assert (found[(bucket, "0.01")], found[(bucket, "0.025")], found[(bucket, "+Inf")]) == (0, 1, 2)


def test_the_documentation_lists_them() -> None:
    text = (Path(__file__).parents[3] / "docs" / "serve.md").read_text(encoding="utf-8")
    assert [name for name in METRICS if f"`{name}`" not in text] == []


def test_the_drafts_of_an_answer_in_vllm_s_form() -> None:
    found = [(9, (1, 2)), (3, ()), (4, (0, 0, 1))]
    results = [
        Result(id="a", tokens=(), finish_reason="stop", draft_tokens=drafted, accepted_histogram=h)
        for drafted, h in found
    ]
    told = speculation(results)
    assert told is not None
    assert told["acceptance_histogram"] == [1, 2, 1]
    assert (told["num_spec_steps"], told["num_accepted_draft_tokens"]) == (4, 4)
    assert told["mean_acceptance_length"] == 2.0
    assert told["draft_acceptance_rate"] == 0.25
    assert told["num_spec_tokens"] == 2
    assert speculation(results[1:2]) is None
