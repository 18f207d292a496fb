"""What the actors' tests share: a tiny target, a draft that is often right, and requests."""

from collections.abc import Callable, Iterator

import pytest
import torch

from actors.messages import Submission
from models.engine import EngineConfig, build_loop
from models.requests.request import Request, Sampling

VOCAB = 64
SAMPLINGS = [
    Sampling(max_tokens=40, temperature=0.0),
    Sampling(max_tokens=30, temperature=0.9, top_p=0.95),
    Sampling(max_tokens=36, temperature=0.7, frequency_penalty=0.5, repetition_penalty=1.1),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of such small models only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders: a target, and a draft whose weights are near it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("checkpoints")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    rest = {"max_position_embeddings": 256, "eos_token_id": 63, "bos_token_id": None}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, **sizes, **heads, **rest))
    model.save_pretrained(root / "target")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
    model.save_pretrained(root / "draft")
    return {name: str(root / name) for name in ("target", "draft")}


@pytest.fixture(scope="session")
def config(checkpoints: dict[str, str]) -> Callable[..., EngineConfig]:
    """An engine's configuration on the tiny target."""

    def make(**changed: object) -> EngineConfig:
        fixed = {"target": checkpoints["target"], "device": "cpu", "threads": 1, "batch_size": 4}
        return EngineConfig(**{**fixed, "draft_tokens": 4, "max_length": 96, **changed})

    return make


def make_requests(count: int) -> list[Request]:
    """Requests of several kinds."""
    return [
        Request(
            id=f"r{i}",
            prompt=tuple((7 * i + j * j) % 60 for j in range(1 + i % 9)),
            sampling=SAMPLINGS[i % len(SAMPLINGS)],
            seed=1000 + i,
        )
        for i in range(count)
    ]


def submissions(requests: list[Request], *, first: int = 1) -> list[Submission]:
    """Requests with tickets from `first` on."""
    return [Submission(ticket=i, request=r) for i, r in enumerate(requests, first)]


@pytest.fixture(scope="session")
def plain(config: Callable[..., EngineConfig]) -> dict[str, tuple[int, ...]]:
    """The tokens of 60 requests by plain decoding in this process."""
    results = build_loop(config()).run(make_requests(60))
    return {result.id: result.tokens for result in results}
