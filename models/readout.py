"""What a forward pass returns besides logits: hidden states of chosen layers, the likeliest tokens.

Letters: T nodes of a batch, W wanted nodes, n layers asked for, L layers of the model, D its width,
V vocabulary, k likeliest tokens.
"""

from dataclasses import dataclass

import torch

from models.errors import InvalidOption


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """A request for hidden states of all nodes, and for the likeliest tokens at the wanted nodes.

    `layers` are numbered as the hidden states of transformers (`output_hidden_states`): 0 is what
    the first layer reads (the embeddings); j is the output of the j-th layer, which the next one
    reads; L is the output of the last layer after the final norm, which the head reads. Negative
    numbers count from the end: -1 is L. `top_k`: how many of the likeliest tokens, 0 for none.
    """

    layers: tuple[int, ...] = ()
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.top_k < 0:
            raise InvalidOption("top_k", self.top_k, "0 (none) or a positive number of tokens")
        if not self.layers and not self.top_k:
            raise InvalidOption("layers", self.layers, "one layer or more, unless top_k is set")

    def check(self, num_layers: int) -> None:
        """Raise InvalidOption unless a model with `num_layers` layers has all of `layers`."""
        for layer in self.layers:
            if not -num_layers - 1 <= layer <= num_layers:
                told = f"0 to {num_layers}, or -1 to {-num_layers - 1} from the end"
                raise InvalidOption("layers", self.layers, told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """The k likeliest tokens of each row, in descending order.

    Their log-probabilities (nats) are those of the unprocessed distribution.
    """

    tokens: torch.Tensor  # [W, k] int64
    logprobs: torch.Tensor  # [W, k] float32


class States:
    """The hidden states that a pass was asked for; filled layer by layer."""

    def __init__(
        self, layers: tuple[int, ...], num_layers: int, nodes: int, like: torch.Tensor
    ) -> None:
        """`like` [..., D]: a tensor with the width, dtype and device of the states."""
        self.layers = tuple(layer % (num_layers + 1) for layer in layers)
        self.values = like.new_empty(nodes, len(layers), like.shape[-1])  # [T, n, D]

    def take(self, index: int, x: torch.Tensor) -> None:
        """Keep x [T, D] if it is a layer that was asked for, numbered as in `Readout`."""
        for place, layer in enumerate(self.layers):
            if layer == index:
                self.values[:, place] = x


def states_for(
    readout: Readout | None, num_layers: int, nodes: int, like: torch.Tensor
) -> States | None:
    """Room for the hidden states of a pass over T `nodes`; None if it was asked for none.

    Raises:
        InvalidOption: the model has no such layer.
    """
    if readout is None or not readout.layers:
        return None
    readout.check(num_layers)
    return States(readout.layers, num_layers, nodes, like)


def top_of(logits: torch.Tensor, readout: Readout | None) -> Top | None:
    """The likeliest tokens by logits [W, V]; None if the pass was asked for none.

    Raises:
        InvalidOption: `top_k` is larger than the vocabulary.
    """
    if readout is None or not readout.top_k:
        return None
    if readout.top_k > logits.shape[-1]:
        told = f"at most the vocabulary of {logits.shape[-1]}"
        raise InvalidOption("top_k", readout.top_k, told)
    return likeliest(log_probabilities(logits), readout.top_k)


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """[R, V] float32 log-probabilities of logits [R, V].

    In float64, rounded once: float32 sums differ in the last bits between kinds of CPU.
    """
    return logits.double().log_softmax(-1).float()


def likeliest(logprobs: torch.Tensor, count: int) -> Top:
    """The `count` likeliest tokens of logprobs [R, V]."""
    top = logprobs.topk(count, dim=-1)
    return Top(tokens=top.indices, logprobs=top.values)
