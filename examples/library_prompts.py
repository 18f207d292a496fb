"""Prompts for drafters of the demo target: functions of the standard library, cut after docstrings.

The demo models learned Python from the same sources. The drafter that is shipped was trained on
what the target writes after such prompts: docs/distill-drafter.md has the commands.
"""

import argparse
import ast
import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {"site-packages", "test", "tests", "idlelib", "lib2to3", "_bundled", "__pycache__"}
LONGEST = 240  # characters of a prompt


def main() -> None:
    options = parse()
    written = write_prompts(options.output, options.count, seed=options.seed)
    print(f"{written} prompts: {options.output}")


def write_prompts(path: Path, count: int, *, seed: int = 0) -> int:
    """Write `count` prompts as JSON Lines, or all if there are fewer; returns how many."""
    prompts = sorted(set(library_prompts()))
    random.Random(seed).shuffle(prompts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for prompt in prompts[:count]:
            file.write(json.dumps({"prompt": prompt}) + "\n")
    return min(count, len(prompts))


def library_prompts() -> Iterator[str]:
    """Signature and docstring of the functions of all modules, if they are short enough."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if not SKIPPED & set(path.relative_to(root).parts):
            yield from prompts_of(path.read_text("utf-8", errors="replace"))


def prompts_of(source: str) -> Iterator[str]:
    """The same of one module; methods keep their indentation."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and len(node.body) > 1:
            prompt = "".join(lines[node.lineno - 1 : node.body[0].end_lineno])
            if len(prompt) <= LONGEST:
                yield prompt


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/library-prompts.jsonl"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
