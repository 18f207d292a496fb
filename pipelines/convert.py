"""`paceline convert`: a published image checkpoint becomes a folder in our layout.

Reads tensors only: a safetensors file, never a pickle, which may hold code.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster.storage import storage
from cluster.storage.checkpoints import file_here
from cluster.storage.outgoing import written
from models.errors import InvalidOption, UnsupportedCheckpoint
from pipelines.errors import OutputRefused
from pipelines.options import check_types, from_mapping, option

LAYOUTS = {  # layout: what it becomes, and the options it reads
    "llamagen-vq16": ("grid_tokenizer", ("image_size",)),
    "llamagen-gpt": ("raster_target", ("image_size", "heads")),
    "var-vqvae": ("scale_tokenizer", ("scales",)),
    "var": ("next_scale_target", ("scales", "heads")),
}
ABOUT = """\
Turn a published LlamaGen or VAR checkpoint into a folder that paceline loads.

Tensors are renamed and reordered, never changed; docs/checkpoint-layouts.md lists names and shapes.
"""
EXAMPLE = """\
example: a target with its tokenizer inside

  paceline convert --from llamagen-gpt --input c2i_B_256.safetensors --output models/llamagen-b
  paceline convert --from llamagen-vq16 --input vq_ds16_c2i.safetensors \\
      --output models/llamagen-b/tokenizer

The published files are pickles, which are never loaded here. Where you trust one, write its tensors
to a safetensors file first; docs/checkpoint-layouts.md has the three lines that do it.
"""
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertConfig:
    """What to convert; on the command line `layout` is --from."""

    layout: str = option("the checkpoint's layout", choices=LAYOUTS)
    input: str = option("the checkpoint, a safetensors file; local or s3://", metavar="FILE")
    output: str = option(
        "folder to write, local or s3://; it must not hold a checkpoint yet", metavar="FOLDER"
    )
    image_size: int | None = option("pixels along a side (default: 256)", default=None)
    heads: int | None = option(
        "attention heads (default: as published for its width)", default=None
    )
    scales: tuple[int, ...] = option(
        "sides of the token maps (default: 1 2 3 4 5 6 8 10 13 16)", default=()
    )

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("image_size", "heads", "scales"):
            value, read = getattr(self, name), LAYOUTS[self.layout][1]
            if value in (None, ()):
                continue
            if name not in read:
                raise InvalidOption(name, value, f"{self.layout} does not read it")
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise InvalidOption(name, value, "1 or more")
        if self.image_size is not None and self.image_size % 16:
            raise InvalidOption("image_size", self.image_size, "a multiple of 16")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "convert",
        help="turn a published image checkpoint into ours",
        description=ABOUT,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    told = {
        name: field.metadata["help"] for name, field in ConvertConfig.__dataclass_fields__.items()
    }
    parser.add_argument(
        "--from", dest="layout", required=True, choices=LAYOUTS, help=told["layout"]
    )
    parser.add_argument("--input", required=True, metavar="FILE", help=told["input"])
    parser.add_argument("--output", required=True, metavar="FOLDER", help=told["output"])
    absent = argparse.SUPPRESS
    for name in ("image_size", "heads"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, metavar="N", default=absent, help=told[name])
    parser.add_argument(
        "--scales", type=int, nargs="+", metavar="N", default=absent, help=told["scales"]
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert and say what came of it."""
    names = ConvertConfig.__dataclass_fields__
    config = from_mapping(ConvertConfig, {k: v for k, v in vars(options).items() if k in names})
    print(convert(config))
    return 0


def convert(config: ConvertConfig) -> str:
    """Write the folder; returns a sentence on what is in it.

    Raises:
        UnsupportedCheckpoint: the file is a pickle, cannot be read or is of another layout.
        OutputRefused: the folder holds a checkpoint already.
        StorageError: the file cannot be fetched, or the folder not be written.
    """
    output = storage.normalize(config.output)
    if storage.file_size(storage.join(output, "config.json")) is not None:
        raise OutputRefused(f"{config.output} holds a checkpoint already; give another --output")
    from models.published import image_layouts as published
    from models.published import var as published_var
    from models.store import read_tensors, write_folder

    source = storage.normalize(config.input)
    _refuse_pickle(source, config.layout)
    module = published_var if config.layout == "var" else published
    make = getattr(module, LAYOUTS[config.layout][0])
    told = published.Told(image_size=config.image_size, heads=config.heads, scales=config.scales)
    with tempfile.TemporaryDirectory() as copies:
        tensors = read_tensors(file_here(source, Path(copies)))
    made: published.Converted = make(tensors, told)
    with written(output) as folder:
        write_folder(folder, made.model_type, made.config, made.tensors)
    count = sum(tensor.numel() for tensor in made.tensors.values())
    return f"{config.output}: {made.model_type}, {len(made.tensors)} tensors, {count:,} parameters"


def _refuse_pickle(source: str, layout: str) -> None:
    if storage.file_size(source) is None:
        raise UnsupportedCheckpoint(f"{source} is not a file")
    with storage.open_input(source) as file:
        start = file.read(4)
    path = PurePosixPath(source)
    if path.suffix in PICKLES or start == b"PK\x03\x04" or start[:3] == b"\x80\x02\x8a":
        inner = "" if layout.startswith("var") else '["model"]'
        raise UnsupportedCheckpoint(
            f"{source} is a pickle, which may hold code and is never loaded. Where you trust it,"
            f" write its tensors with safetensors.torch.save_file(torch.load({path.name!r},"
            f" weights_only=True){inner}, {path.stem + '.safetensors'!r}) and convert that file"
        )
