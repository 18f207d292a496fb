"""Sections against transformers, one request at a time: plain, draft, lookup."""

import statistics
from collections.abc import Mapping
from dataclasses import replace

from benchmarks import openvino
from benchmarks.copying import RUN, copied_share, function_prompts, record_prompts
from benchmarks.peers import Transformers
from benchmarks.section import Goal, Section, made_of, step_of
from benchmarks.work import Setting, Slices, Work, compete, ours
from pipelines.bench.interleave import Series
from pipelines.bench.measurement import Measurement, measurement
from pipelines.bench.recipe import PLAIN, Recipe

PLAIN_GOAL, ASSISTED_GOAL, TREE_GOAL = 1.7, 2.0, 1.4
LOOKUP_GOAL, LOOKUP_PLAIN_GOAL = 1.5, 2.0
COPIES = 12  # prompts of the text with many copies
LONGER = 3  # times as many tokens as of other prompts


def plain(work: Work) -> Section:
    """Our plain decoding and transformers' generate."""
    section = Section(name="plain", title="Plain decoding")
    for setting in settings(work):
        peers = Transformers(work, setting.dtype)
        contestants = {
            "plain": ours(work, PLAIN, setting),
            "transformers generate": peers.generate(setting),
        }
        contestants |= openvino.contestants(work, setting, "plain")
        series = compete(f"plain, {setting}", contestants, len(work.slices), threads=work.threads)
        lines = measured(series, setting)
        section.add(str(setting), list(lines.values()))
        section.goals.append(
            Goal(
                text=f"plain over transformers' generate, {setting}",
                goal=PLAIN_GOAL,
                measured=series["plain"].over(series["transformers generate"]),
                why=step_of(lines["plain"]),
            )
        )
    section.notes += openvino.notes(work)
    return section


def draft(work: Work) -> Section:
    """The draft model as a chain, as a tree and with automatic sizes, and assisted generation."""
    section = Section(name="draft", title="Draft model")
    for setting in settings(work):
        peers = Transformers(work, setting.dtype)
        contestants = {name: ours(work, recipe, setting) for name, recipe in work.recipes().items()}
        contestants["transformers assisted"] = peers.assisted(setting)
        contestants |= openvino.contestants(work, setting, "draft")
        series = compete(f"draft, {setting}", contestants, len(work.slices), threads=work.threads)
        lines = measured(series, setting)
        section.add(str(setting), list(lines.values()))
        section.goals += _draft_goals(work, setting, series, lines)
    section.notes += openvino.notes(work)
    return section


def _draft_goals(
    work: Work, setting: Setting, series: Mapping[str, Series], lines: Mapping[str, Measurement]
) -> list[Goal]:
    tree = work.small_tree.size
    goals = [
        Goal(
            text=f"draft model (auto) over transformers' assisted generation, {setting}",
            goal=ASSISTED_GOAL,
            measured=series["auto"].over(series["transformers assisted"]),
            why=made_of(lines["auto"], lines["plain"]),
        )
    ]
    if setting.dtype == "bfloat16":
        goals.append(
            Goal(
                text=f"{tree} over our plain decoding, {setting}",
                goal=TREE_GOAL,
                measured=series[tree].over(series["plain"]),
                why=made_of(lines[tree], lines["plain"]),
            )
        )
    return goals


def lookup(work: Work) -> Section:
    """Prompt lookup on text with many copies and on ordinary prompts."""
    section = Section(name="lookup", title="Prompt lookup")
    section.notes.append(
        f"Copies are generated tokens in runs of {RUN} or more that occur earlier in the text. "
        "Records are the first lines of tables with the same keys in every line. Functions are "
        "taken from the standard library: each prompt holds one twice, and its first two lines a "
        f"third time. These completions are {LONGER} times as long as the others, as is usual for "
        "text with many copies, so prefill, which drafts do not speed up, is a smaller share."
    )
    copying = replace(work, max_tokens=LONGER * work.max_tokens)
    for text, make in (("records", record_prompts), ("functions", function_prompts)):
        prompts = make(work.target, count=min(COPIES, sum(map(len, work.slices))))
        count = min(len(work.slices), len(prompts))
        slices = [prompts[i::count] for i in range(count)]
        for dtype in work.dtypes:
            setting = Setting(dtype=dtype, slices=slices)
            series, lines = _lookup(copying, setting)
            label = f"{text}, {_copied(series['plain'], slices):.0%} copies, {setting}"
            section.add(label, list(lines.values()))
            section.goals += _lookup_goals(label, series, lines)
    setting = Setting(dtype=work.dtypes[0])
    section.add(f"ordinary prompts, {setting}", list(_lookup(work, setting)[1].values()))
    return section


def _lookup(work: Work, setting: Setting) -> tuple[dict[str, Series], dict[str, Measurement]]:
    peers = Transformers(work, setting.dtype)
    contestants = {
        "plain": ours(work, PLAIN, setting),
        "lookup": ours(work, Recipe(drafter="lookup"), setting),
        "transformers lookup": peers.lookup(setting),
    }
    contestants |= openvino.contestants(work, setting, "lookup")
    turns = len(setting.slices or work.slices)
    series = compete(f"lookup, {setting}", contestants, turns, threads=work.threads)
    return series, measured(series, setting)


def _lookup_goals(
    label: str, series: Mapping[str, Series], lines: Mapping[str, Measurement]
) -> list[Goal]:
    why = made_of(lines["lookup"], lines["plain"])
    return [
        Goal(
            text=f"lookup over transformers' prompt lookup, {label}",
            goal=LOOKUP_GOAL,
            measured=series["lookup"].over(series["transformers lookup"]),
            why=why,
        ),
        Goal(
            text=f"lookup over our plain decoding, {label}",
            goal=LOOKUP_PLAIN_GOAL,
            measured=series["lookup"].over(series["plain"]),
            why=why,
        ),
    ]


def _copied(series: Series, slices: Slices) -> float:
    prompts = {f"{prompt.id}#0": prompt.tokens for part in slices for prompt in part}
    shares = [copied_share(prompts[name], tokens) for name, tokens in series.outputs.items()]
    return statistics.mean(shares)


def settings(work: Work) -> list[Setting]:
    """Every dtype at every temperature."""
    return [
        Setting(dtype=dtype, temperature=temperature)
        for dtype in work.dtypes
        for temperature in work.temperatures
    ]


def measured(series: Mapping[str, Series], setting: Setting) -> dict[str, Measurement]:
    """Lines of a table. Tokens of other software are compared at temperature 0 only."""
    plain = series["plain"]
    return {
        name: measurement(
            name,
            runs,
            plain,
            batch_size=setting.batch_size,
            reference=plain.outputs if _comparable(runs, setting) else None,
            whole=True,
        )
        for name, runs in series.items()
    }


def _comparable(series: Series, setting: Setting) -> bool:
    return setting.temperature == 0 or series.middle.figures is not None
