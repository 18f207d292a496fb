"""The section on a real model: ours beside transformers, openvino-genai and llama.cpp, greedy.

The model is that of `make real-model`, the prompts are chats (examples/chat.jsonl), uncut.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import gguf_file, llama_cpp, openvino
from benchmarks.peers import Transformers
from benchmarks.section import Goal, Section, made_of, step_of
from benchmarks.versus import PLAIN_GOAL, measured
from benchmarks.work import Contestant, Setting, Work, compete, make_loop, ours
from pipelines.bench.interleave import Series
from pipelines.bench.measurement import Measurement
from pipelines.bench.recipe import PLAIN, Recipe
from pipelines.generate.rows.prompts import Prompt, read_prompts, requests

PROMPTS = "examples/chat.jsonl"
MODEL = "examples/models/smollm2-135m-instruct"
NEVER_SLOWER = 0.97  # of plain, where the controller decides
AUTO = "lookup, auto"
OTHERS = ("openvino-genai plain", "llama.cpp F16")
PARTS = ("contestant", "prompt and first token, ms", "each further token, ms", "weights, GB/s")


def missing() -> str | None:
    """Why the section cannot run; None if it can."""
    return None if Path(MODEL).is_dir() else f"no {MODEL}: run `make real-model` first"


def real(asked: Work) -> Section:
    """The same weights, prompts and threads for all."""
    prompts = read_prompts(PROMPTS, checkpoint=MODEL, count=sum(map(len, asked.slices)))
    work = replace(asked, target=MODEL, slices=(tuple(prompts),), openvino=asked.real_openvino)
    lasting, turns = _lasting(work, prompts), len(asked.slices)
    slices = tuple(tuple(lasting[i::turns]) for i in range(min(turns, len(lasting))))
    work = replace(work, slices=slices)
    section = Section(name="real", title="A real model: SmolLM2-135M-Instruct")
    section.notes.append(
        f"{len(lasting)} chats from {PROMPTS} of {min(len(p.tokens) for p in lasting)} to "
        f"{max(len(p.tokens) for p in lasting)} tokens; completions of {work.max_tokens}. "
        f"{len(prompts) - len(lasting)} chats whose answers are shorter are left out: beyond its "
        "end an answer repeats itself, which lookup would gain from."
    )
    reasons = [llama_cpp.missing(), openvino.missing(work)]
    section.notes += [f"{reason}." for reason in reasons if reason is not None]
    with tempfile.TemporaryDirectory() as folder:
        file = None if llama_cpp.missing() else Path(folder) / "model.gguf"
        if file is not None:
            told = gguf_file.save_gguf(MODEL, file)
            section.notes.append(f"llama.cpp's file is made of the same weights: {told}.")
        for dtype in work.dtypes:
            _compare(section, work, Setting(dtype=dtype), file)
    return section


def _lasting(work: Work, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts whose answers do not end before all tokens are written."""
    loop = make_loop(work, PLAIN, Setting(dtype=work.dtypes[0], batch_size=4))
    sampling = replace(work.sampling(0.0), ignore_eos=False)
    results = loop.run(requests(prompts, sampling, seed=0))
    long = {result.id for result in results if len(result.tokens) == work.max_tokens}
    return [prompt for prompt in prompts if f"{prompt.id}#0" in long]


def _compare(section: Section, work: Work, setting: Setting, file: Path | None) -> None:
    """The tables and goals of one dtype."""
    peers = Transformers(work, setting.dtype)
    fixed = Recipe(drafter="lookup", draft_tokens=work.chain)
    contestants = _plain(work, setting, peers, file)
    contestants[f"lookup, {fixed.size}"] = ours(work, fixed, setting)
    contestants[AUTO] = ours(work, Recipe(drafter="lookup"), setting)
    contestants["transformers lookup"] = peers.lookup(setting)
    contestants |= openvino.contestants(work, setting, "lookup")
    turns = len(work.slices)
    series = compete(f"real, {setting}", contestants, turns, threads=work.threads)
    lines = measured(series, setting)
    section.add(str(setting), list(lines.values()))
    section.goals += _goals(setting, series, lines)

    short = replace(work, max_tokens=1)
    first = compete(
        f"first tokens, {setting}",
        _plain(short, setting, Transformers(short, setting.dtype), file),
        turns,
        threads=work.threads,
    )
    rows = [_parts(work, name, first[name], series[name]) for name in first]
    section.put(f"where the time goes, {setting}", PARTS, rows)


def _plain(
    work: Work, setting: Setting, peers: Transformers, file: Path | None
) -> dict[str, Contestant]:
    """Everybody's decoding without drafts."""
    found = {
        "plain": ours(work, PLAIN, setting),
        "transformers generate": peers.generate(setting),
        **openvino.contestants(work, setting, "plain"),
    }
    return found if file is None else found | llama_cpp.contestants(work, setting, file)


def _parts(work: Work, name: str, first: Series, whole: Series) -> Sequence[str]:
    """The mean prompt's time, cut after the first token."""
    counts = [len(prompts) for prompts in work.slices]
    one = [run.seconds / n for run, n in zip(first.runs, counts, strict=True)]
    every = [run.seconds / n for run, n in zip(whole.runs, counts, strict=True)]
    steps = [(b - a) / (work.max_tokens - 1) for a, b in zip(one, every, strict=True)]
    step = statistics.median(steps)
    size = sum(path.stat().st_size for path in Path(work.target).glob("*.safetensors"))
    cells = (1e3 * statistics.median(one), 1e3 * step, size / step / 1e9)
    return [name, *(f"{cell:.1f}" for cell in cells)]


def _goals(
    setting: Setting, series: Mapping[str, Series], lines: Mapping[str, Measurement]
) -> list[Goal]:
    why = step_of(lines["plain"])
    wanted = {"transformers generate": PLAIN_GOAL, **dict.fromkeys(OTHERS, 1.0)}
    goals = [
        Goal(
            text=f"plain over {name}, real model, {setting}",
            goal=goal,
            measured=series["plain"].over(series[name]),
            why=why,
        )
        for name, goal in wanted.items()
        if name in series
    ]
    goals.append(
        Goal(
            text=f"lookup (auto) over our plain, real model, {setting}",
            goal=NEVER_SLOWER,
            measured=series[AUTO].over(series["plain"]),
            why=made_of(lines[AUTO], lines["plain"]),
        )
    )
    return goals
