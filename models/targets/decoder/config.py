"""The configuration of a decoder checkpoint: Llama, Mistral, Qwen, image grids."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UnsupportedCheckpoint

RASTER = "paceline_raster"  # image tokens of a grid, row by row; the layout of LlamaGen
KNOWN = ("llama", "mistral", "qwen2", "qwen3", RASTER)
ROTARY_KINDS = ("default", "linear", "llama3")
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RotaryConfig:
    """Rotary embedding: the base, and how its frequencies are scaled for long contexts.

    Kind "grid": position 0 is the class; the other positions are places in rows of `row_length`.
    Half of a head's dimensions rotate with the row, half with the column.
    """

    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context_length: int = 8192
    row_length: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GridInput:
    """The input of an image target: the prompt is one class, its tokens fill a grid.

    Input ids from the vocabulary's size on are classes; the last one is the null class.
    `code_width`: a token's input is Linear(code of this width); None: a row of a stored table.
    """

    num_classes: int
    code_width: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The sizes and variants of one decoder.

    `window`: the number of entries that a token sees at most, itself included; None: all.
    """

    architecture: str
    vocab_size: int
    width: int
    inner_width: int  # of the feed-forward block
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    norm_eps: float = 1e-6
    rotary: RotaryConfig = RotaryConfig()
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tied: bool = False  # the output matrix is the embedding
    window: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    grid: GridInput | None = None  # None: text

    @property
    def input_size(self) -> int:
        """Number of input ids: the vocabulary (ids that can be generated), and classes."""
        return self.vocab_size + (self.grid.num_classes + 1 if self.grid else 0)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a checkpoint's JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedCheckpoint(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise UnsupportedCheckpoint(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnsupportedCheckpoint(f"{path} does not hold a JSON object")
    return content


def read_configs(path: Path) -> tuple[Json, Json]:
    """config.json and generation_config.json ({} where there is none) of a checkpoint."""
    if not path.is_dir():
        raise UnsupportedCheckpoint(f"{path} is not a folder with a checkpoint{meant(path)}")
    generation = path / "generation_config.json"
    return read_json(path / "config.json"), read_json(generation) if generation.exists() else {}


def meant(path: Path) -> str:
    """Why a path is no folder, and which one beside it has such a name."""
    if path.exists():
        return ": it is a file"
    beside = [folder.name for folder in path.parent.glob("*/")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    if near:
        return f": there is no such folder; did you mean {path.parent / near[0]}?"
    return ": there is no such folder; models are read from folders and s3://, not from a hub"


def is_known(raw: Json) -> bool:
    """Whether our decoder runs this configuration; otherwise transformers runs it."""
    architectures = raw.get("architectures") or ["ForCausalLM"]
    rotary = _rotary_fields(raw)
    return (
        raw.get("model_type") in KNOWN
        and str(architectures[0]).endswith("ForCausalLM")
        and raw.get("hidden_act", "silu") == "silu"
        and rotary.get("rope_type", rotary.get("type", "default")) in ROTARY_KINDS
        and rotary.get("partial_rotary_factor", 1.0) == 1.0
        and len(set(_layer_types(raw))) <= 1
        and "quantization_config" not in raw
    )


def parse_config(raw: Json, generation: Json) -> DecoderConfig:
    """Our configuration from config.json and generation_config.json (or {}).

    Raises:
        UnsupportedCheckpoint: a field is missing or of the wrong type; the message names it.
    """
    kind = str(raw["model_type"])
    heads = _integer(raw, "num_attention_heads")
    width = _integer(raw, "hidden_size")
    biased = bool(raw.get("attention_bias", False))
    default_head_dim = 128 if kind == "qwen3" else width // heads
    return DecoderConfig(
        architecture=str((raw.get("architectures") or [kind])[0]),
        vocab_size=_integer(raw, "vocab_size"),
        width=width,
        inner_width=_integer(raw, "intermediate_size"),
        num_layers=_integer(raw, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=_num_kv_heads(raw, heads),
        head_dim=int(raw.get("head_dim") or default_head_dim),
        context_length=_integer(raw, "max_position_embeddings"),
        norm_eps=_number(raw, "rms_norm_eps"),
        rotary=_rotary(raw),
        qkv_bias=kind == "qwen2" or biased,
        out_bias=kind != "qwen2" and biased,
        mlp_bias=bool(raw.get("mlp_bias", False)),
        qk_norm=kind == "qwen3",
        tied=bool(raw.get("tie_word_embeddings", False)),
        window=_window(raw),
        eos_token_ids=eos_token_ids(raw, generation),
        grid=_grid(raw) if kind == RASTER else None,
    )


def eos_token_ids(raw: Json, generation: Json) -> tuple[int, ...]:
    """The tokens that end a text; generation_config.json wins over config.json."""
    ids = generation.get("eos_token_id")
    ids = raw.get("eos_token_id") if ids is None else ids
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, list) else (int(ids),)


def _number(raw: Json, name: str) -> float:
    value = raw.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        found = "is missing" if value is None else f"is {value!r}"
        raise UnsupportedCheckpoint(f"config.json: {name} {found}; a number is needed")
    return value


def _integer(raw: Json, name: str) -> int:
    value = _number(raw, name)
    if value != int(value) or value < 1:
        raise UnsupportedCheckpoint(f"config.json: {name} is {value!r}; a whole number is needed")
    return int(value)


def _num_kv_heads(raw: Json, heads: int) -> int:
    value = raw.get("num_key_value_heads")
    number = heads if value is None else int(value)
    if number < 1 or heads % number:
        raise UnsupportedCheckpoint(
            f"config.json: num_key_value_heads={number} does not divide {heads} attention heads"
        )
    return number


def _rotary_fields(raw: Json) -> Json:
    """The rotary fields of both formats: `rope_parameters`, or `rope_theta` and `rope_scaling`."""
    nested = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    return {"rope_theta": raw.get("rope_theta") or 10_000.0, **nested}


def _grid(raw: Json) -> GridInput:
    width = None if raw.get("code_width") is None else _integer(raw, "code_width")
    head = raw.get("head_dim") or _integer(raw, "hidden_size") / _integer(
        raw, "num_attention_heads"
    )
    if head % 4:
        raise UnsupportedCheckpoint(f"config.json: heads of {head:g} dimensions; 4, 8, 12... turn")
    return GridInput(num_classes=_integer(raw, "num_classes"), code_width=width)


def _rotary(raw: Json) -> RotaryConfig:
    fields = _rotary_fields(raw)
    if raw["model_type"] == RASTER:
        row_length = _integer(raw, "grid_width")
        return RotaryConfig(theta=float(fields["rope_theta"]), kind="grid", row_length=row_length)
    context = raw.get("max_position_embeddings")
    return RotaryConfig(
        theta=float(fields["rope_theta"]),
        kind=fields.get("rope_type", fields.get("type", "default")),
        factor=float(fields.get("factor", 1.0)),
        low_freq_factor=float(fields.get("low_freq_factor", 1.0)),
        high_freq_factor=float(fields.get("high_freq_factor", 4.0)),
        original_context_length=int(fields.get("original_max_position_embeddings", context)),
    )


def _layer_types(raw: Json) -> list[str]:
    """The attention kind of each layer, from `layer_types` or from Qwen's older fields."""
    listed = raw.get("layer_types")
    if listed:
        return [str(kind) for kind in listed]
    if raw.get("use_sliding_window") and raw.get("sliding_window"):
        full = min(int(raw.get("max_window_layers", 28)), int(raw.get("num_hidden_layers", 0)))
        sliding = int(raw.get("num_hidden_layers", 0)) - full
        return ["full_attention"] * full + ["sliding_attention"] * sliding
    return []


def _window(raw: Json) -> int | None:
    """The sliding window, if every layer has one."""
    if raw["model_type"] == "mistral":
        window = raw.get("sliding_window", 4096)
    else:
        window = raw.get("sliding_window") if "sliding_attention" in _layer_types(raw) else None
    return None if window is None else int(window)
