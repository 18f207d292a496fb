import pickle
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.errors import InvalidOption
from pipelines.bench.config import BenchConfig
from pipelines.cli import main, parse
from pipelines.evaluate.config import EvaluateConfig
from pipelines.flags import read_yaml
from pipelines.generate.command import config_of
from pipelines.generate.config import GenerateConfig
from pipelines.options import as_dict, from_mapping

NEEDED = {"target": "t", "input": "i", "output": "o"}


def config(**values: Any) -> GenerateConfig:
    return from_mapping(GenerateConfig, {**NEEDED, **values})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"temprature": 1.0}, "temprature=1.0 is not accepted: .*did you mean 'temperature'"),
        ({"max-tokens": 3}, "did you mean 'max_tokens'"),
        ({"xyzzy": 3}, "known are target, input"),
        ({"temperature": "hot"}, "temperature='hot' is not accepted: a number is needed"),
        ({"temperature": True}, "temperature=True is not accepted: a number"),
        ({"max_tokens": 2.5}, "max_tokens=2.5 is not accepted: a whole number"),
        ({"max_tokens": 0}, "max_tokens=0 is not accepted: 1 or more"),
        ({"top_p": 0}, "top_p=0.0 is not accepted: above 0"),
        ({"n": 0}, "n=0 is not accepted"),
        ({"seed": -1}, "seed=-1 is not accepted"),
        ({"stop": ["a", 3]}, "a list of which each is a text"),
        ({"stop": [""]}, "stop=.* not empty"),
        ({"logit_bias": {"a": 1.0}}, "a mapping from a whole number to a number"),
        ({"logprobs": 21}, "logprobs=21 is not accepted: 0 to 20"),
        ({"verify": "guess"}, "verify='guess' is not accepted: one of match, rejection, block"),
        ({"dtype": "int8"}, "dtype='int8' is not accepted: one of float32"),
        ({"draft_tokens": "many"}, "draft_tokens='many' is not accepted: auto or"),
        ({"draft_tokens": 0}, "draft_tokens=0 is not accepted"),
        ({"draft_actors": 1}, "draft_actors=1 is not accepted: 0 with drafter='none'"),
        ({"draft_tokens": 4}, "draft_tokens=4 is not accepted: auto with drafter='none'"),
        ({"draft_width": 1}, "draft_width=1 is not accepted: auto with drafter='none'"),
        ({"draft_nodes": 4}, "draft_nodes=4 is not accepted: none with drafter='none'"),
        ({"draft_tokens": 4, "decoder": "sequential"}, "auto with decoder='sequential'"),
        ({"resume": "yes"}, "resume='yes' is not accepted: true or false"),
        ({"target": ""}, "target='' is not accepted"),
        ({"threads": 0}, "threads=0 is not accepted"),
    ],
)
def test_what_is_refused_is_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        config(**values)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidOption, match="output=None is not accepted: it must be given"):
        from_mapping(GenerateConfig, {"target": "t", "input": "i"})


def test_python_and_yaml_give_the_same() -> None:
    text = "temperature: 1\nstop: [a, b]\nlogit_bias: {5: -1}\ndraft_tokens: auto\nlogprobs: 3\n"
    made = config(**yaml.safe_load(text))
    assert made == config(
        temperature=1.0, stop=("a", "b"), logit_bias={5: -1.0}, draft_tokens="auto", logprobs=3
    )
    assert made.sampling().stop == ("a", "b")
    assert config(stop="x").stop == ("x",)
    assert from_mapping(GenerateConfig, {**as_dict(made), "logit_bias": {5: -1}}) == made


def test_refusals_survive_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(InvalidOption("top_k", -1, "0 or more")))
    assert (error.field, str(error)) == ("top_k", "top_k=-1 is not accepted: 0 or more")


def test_every_option_says_what_it_is() -> None:
    assert all(len(found.metadata["help"]) > 8 for found in fields(GenerateConfig))


def run(*arguments: str) -> tuple[int, str]:
    """The exit code and what stood on standard error, from a process of its own."""
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "paceline: the following arguments are required: COMMAND"),
        (["generat"], "invalid choice: 'generat'"),
        (["generat"], "did you mean generate?"),
        (["generate"], "paceline: target=None is not accepted: it must be given"),
        (["generate", "--targe", "x"], "there is no option --targe; did you mean --target?"),
        (["generate", "x"], "unexpected argument 'x'"),
        (["generate", "--top-k", "x"], "argument --top-k: 'x' is not a whole number"),
        (["generate", "--top-p", "x"], "argument --top-p: 'x' is not a number"),
        (["generate", "--verify", "x"], "argument --verify: invalid choice: 'x'"),
        (["generate", "--verify", "mach"], "did you mean match?"),
        (["generate", "--logit-bias", "3"], "'3' is not accepted: TOKEN=BIAS is needed"),
        (["generate", "--logit-bias", "x=1"], "'x=1' is not accepted: TOKEN=BIAS is needed"),
        (
            ["bench", "--batch-sizes", "1"],
            "there is no option --batch-sizes; did you mean --batch-size?",
        ),
        (["generate", "--config", "/no/such.yaml"], "cannot read /no/such.yaml"),
    ],
)
def test_usage_errors_are_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    error = capsys.readouterr().err
    assert code == 2
    assert told in error
    assert error.count("\n") == 1


def test_help_teaches_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["generate", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        told = capsys.readouterr().out
        assert "example" in told
        assert "paceline generate" in told
    for found in fields(GenerateConfig):
        assert "--" + found.name.replace("_", "-") in told


def test_help_shows_what_matters_first(capsys: pytest.CaptureFixture[str]) -> None:
    first = ["target", "input", "output", "drafter", "max-tokens", "temperature", "batch-size"]
    with pytest.raises(SystemExit, match="0"):
        main(["generate", "--help"])
    told = capsys.readouterr().out
    _, _, groups = told.partition("main options:")
    main_group, *others = groups.split("\n\n")
    assert re.findall(r"^  --([a-z-]+)", main_group, re.M) == [*first, "seed"]
    assert [text.partition(":\n")[0] for text in others[:5]] == [
        "rows in and out",
        "sampling",
        "end of a completion",
        "drafting",
        "images (with an image target only)",
    ]


def test_every_option_has_a_group() -> None:
    for cls in (GenerateConfig, BenchConfig, EvaluateConfig):
        assert all(found.metadata["group"] for found in fields(cls))


def test_the_version_names_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    told = capsys.readouterr().out
    assert re.fullmatch(r"paceline \S+ \(ray .+, torch .+, transformers .+, Python .+\)\n", told)


def test_lazy_names_are_listed() -> None:
    import paceline

    assert set(paceline.__all__) <= set(dir(paceline))


def test_the_command_line_comes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("target: t\ninput: i\noutput: o\ntemperature: 0.5\nmax_tokens: 9\nresume: no\n")
    flags = ["--temperature", "0", "--stop", "a", "b", "--logit-bias", "3=-1.5", "4=2"]
    flags += ["--drafter", "lookup", "--draft-tokens", "5"]
    made = config_of(parse(["generate", "--config", str(path), *flags]))
    expected = {"temperature": 0.0, "stop": ("a", "b"), "logit_bias": {3: -1.5, 4: 2.0}}
    expected |= {"max_tokens": 9, "resume": False, "draft_tokens": 5, "draft_width": "auto"}
    assert {name: getattr(made, name) for name in expected} == expected


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "temprature: 1\n"])
def test_a_bad_file_is_one_line(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    assert main(["generate", "--config", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_key_that_stands_twice_in_a_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("base: &base {n: 1}\nmax_tokens: 5\nmax_tokens: 6\n")
    assert main(["generate", "--config", str(path)]) == 2
    assert "'max_tokens' stands twice" in capsys.readouterr().err
    path.write_text("target: &here a\ninput: *here\noutput: b\nlogit_bias: {<<: {1: 2}, 1: 3}\n")
    assert read_yaml(str(path))["logit_bias"] == {1: 3}
    path.write_text("<<: &job\n  <<: {input: a}\n  input: b\noutput: c\n")
    assert read_yaml(str(path)) == {"input": "b", "output": "c"}


def test_help_shows_defaults_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "--help"])
    assert "(default: 1 2 4 8)" in " ".join(capsys.readouterr().out.split())


def test_help_is_quick_and_needs_no_torch() -> None:
    program = "import sys, pipelines.cli as c\ntry: c.main(['generate', '--help'])\n"
    program += "except SystemExit: pass\nassert not {'torch', 'ray', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_the_program_exits_with_the_code() -> None:
    code, told = run("generate", "--target", "t")
    assert (code, told.count("\n")) == (2, 1)
