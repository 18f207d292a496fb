"""What a teacher says of samples: its own, colder ones, guided ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import InvalidInput
from tests.pipelines.generate.image_jobs import NUM_CLASSES, save_scale
from tests.pipelines.generate.stamps import run


def text_rows(path: Path, target: str, *, seed: int, temperature: float) -> str:
    """What a text model writes after some prompts, as generate's rows."""
    from models.engine import EngineConfig, build_loop
    from models.requests.request import Request, Sampling

    loop = build_loop(EngineConfig(target=target, threads=1, batch_size=30))
    sampling = Sampling(max_tokens=8, temperature=temperature, ignore_eos=True)
    asked = [
        Request(id=str(i), prompt=(64 + i % 3, 70), sampling=sampling, seed=1000 * seed + i)
        for i in range(60)
    ]
    results = {result.id: list(result.tokens) for result in loop.run(asked)}
    symbols = prompts_of(target)
    rows = [
        {"prompt": symbols(request.prompt), "tokens": results[request.id], "error": None}
        for request in asked
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def prompts_of(target: str) -> Callable[[tuple[int, ...]], str]:
    from actors.tokenizer import TokenizerActor

    tokenizer = TokenizerActor(target)
    return lambda tokens: tokenizer.decode_batch([tokens])[0]


def test_a_teacher_knows_its_own_text(checkpoints: dict[str, str], tmp_path: Path) -> None:
    target = checkpoints["target"]
    own = [text_rows(tmp_path / f"{i}.parquet", target, seed=i, temperature=1) for i in range(3)]
    cold = text_rows(tmp_path / "cold.parquet", target, seed=7, temperature=0.5)
    known: dict[str, Any] = {"reference": own[1], "floor": own[2], "teacher": target}
    known |= {"metrics": ["nll", "nll-excess"], "bootstrap": 60}
    honest, biased = run({"samples": own[0], **known}), run({"samples": cold, **known})
    assert honest.beyond == []
    low, high = honest.outcomes[1].interval
    assert low < 0 < high
    assert biased.beyond == ["nll", "nll-excess"]
    assert biased.outcomes[0].value < biased.outcomes[0].floor
    with pytest.raises(InvalidInput, match="every row needs a prompt"):
        run({"samples": own[0], **known, "prompt_field": "none"})


def test_an_image_teacher_reads_labels_and_guidance(tmp_path: Path) -> None:
    """A guided teacher finds its own guided samples likelier than it does plain ones."""
    target = raster_checkpoint(tmp_path / "teacher")
    plain = [image_rows(tmp_path / f"{i}.npz", target, seed=i, guidance=1.0) for i in range(2)]
    guided = [image_rows(tmp_path / f"{i}.npz", target, seed=i, guidance=4.0) for i in (2, 3, 4)]
    known: dict[str, Any] = {"reference": guided[0], "floor": guided[1], "teacher": target}
    known |= {"metrics": ["nll", "nll-excess"], "guidance": 4.0, "bootstrap": 60}
    assert run({"samples": guided[2], **known}).beyond == []
    assert "nll-excess" in run({"samples": plain[0], **known}).beyond
    honest = {**known, "reference": plain[0], "floor": plain[1], "guidance": None}
    low, high = run({"samples": plain[0], **honest}).outcomes[1].interval
    assert low < 0 < high
    tokens, labels = np.zeros((40, 9), dtype=np.int64), np.arange(40) % 4
    np.savez(tmp_path / "bare.npz", tokens=tokens)
    with pytest.raises(InvalidInput, match=r"every row needs a label \(column 'label'\)"):
        run({"samples": str(tmp_path / "bare.npz"), **known})
    np.savez(tmp_path / "four.npz", tokens=tokens, labels=labels)
    with pytest.raises(InvalidInput, match=r"has the label '3': the teacher .* knows 0 to 2"):
        run({"samples": str(tmp_path / "four.npz"), **known})
    np.savez(tmp_path / "long.npz", tokens=np.zeros((40, 10), dtype=np.int64), labels=labels % 3)
    with pytest.raises(InvalidInput, match=r"a row of 11 tokens, .* context has 10"):
        run({"samples": str(tmp_path / "long.npz"), **known})
    np.savez(tmp_path / "odd.npz", tokens=tokens + 6, labels=labels % 3)
    with pytest.raises(InvalidInput, match="token 6 is outside the vocabulary of 6"):
        run({"samples": str(tmp_path / "odd.npz"), **known})


def test_a_next_scale_teacher_reads_images_as_its_own_decoding_does(tmp_path: Path) -> None:
    target = save_scale(tmp_path / "teacher")
    own = [scale_rows(tmp_path / f"{i}.npz", target, seed=i) for i in range(3)]
    known: dict[str, Any] = {"reference": own[0], "floor": own[1], "teacher": target}
    known |= {"metrics": ["nll", "nll-excess"], "bootstrap": 60}
    report = run({"samples": own[2], **known})
    assert report.beyond == []
    assert report.outcomes[0].value == pytest.approx(-np.load(own[2])["logprobs"].mean(), abs=1e-5)
    tokens, labels = np.load(own[2])["tokens"], np.arange(40) % NUM_CLASSES
    np.savez(tmp_path / "short.npz", tokens=tokens[:, :-1], labels=labels)
    with pytest.raises(InvalidInput, match="has 29 tokens; its images have 30"):
        run({"samples": str(tmp_path / "short.npz"), **known})


def scale_rows(path: Path, target: str, *, seed: int) -> str:
    """Images of a next-scale target by its own decoding, with labels and logprobs."""
    from models.engine import EngineConfig, build_loop
    from models.requests.request import Request, Sampling

    loop, labels = build_loop(EngineConfig(target=target, threads=1)), np.arange(40) % NUM_CLASSES
    first, sampling = loop.target.vocab_size, Sampling(max_tokens=30, logprobs=0)
    asked = [
        Request(id=str(i), prompt=(first + int(k),), sampling=sampling, seed=1000 * seed + i)
        for i, k in enumerate(labels)
    ]
    found = {result.id: result for result in loop.run(asked)}
    results = [found[request.id] for request in asked]
    np.savez(
        path,
        tokens=np.array([result.tokens for result in results]),
        labels=labels,
        logprobs=np.array([[said.logprob for said in r.logprobs or ()] for r in results]),
    )
    return str(path)


def raster_checkpoint(folder: Path) -> str:
    """A random target of 3 classes over 3 x 3 places of 6 tokens, far from uniform."""
    import torch

    from models.training.raster import RasterConfig, RasterModel

    torch.manual_seed(0)
    sizes = {"grid_width": 3, "grid_height": 3, "width": 16, "inner_width": 24, "num_heads": 2}
    config = RasterConfig(vocab_size=6, code_width=4, num_classes=3, num_layers=1, **sizes)
    model = RasterModel(config, torch.randn(6, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    model.save(folder, torch.float32)
    return str(folder)


def image_rows(path: Path, target: str, *, seed: int, guidance: float) -> str:
    """Samples of a raster target by plain guided decoding, with their labels."""
    import torch

    from models.metrics.likelihood import guided, teacher_forced
    from models.targets.load import load_target

    inner = load_target(target, dtype=torch.float32, device="cpu")
    score = guided(teacher_forced(inner), guidance, np.array([9]))
    generator, labels = torch.Generator().manual_seed(seed), np.arange(150) % 3
    rows = np.zeros((150, 0), dtype=np.int64)
    for _ in range(9):
        ahead = np.concatenate([rows, np.zeros((150, 1), dtype=np.int64)], axis=1)
        logits = score([np.array([6 + label]) for label in labels], list(ahead))
        probs = torch.stack([found[-1] for found in logits]).softmax(-1)
        drawn = torch.multinomial(probs, 1, generator=generator).numpy()
        rows = np.concatenate([rows, drawn], axis=1)
    np.savez(path, tokens=rows, labels=labels)
    return str(path)
