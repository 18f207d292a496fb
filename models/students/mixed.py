"""Teacher-mixed sampling: the target decodes a range of a student's tokens anew.

Distilled Decoding 1 (Liu et al. 2025), the variant that takes more steps for better images. The
student decides all tokens; the target decodes the range one by one, after the student's tokens
before it; the student decides the tokens after the range in one more pass. All use the same noise,
so a range of all tokens gives the target's own images under the map `flow`.
"""

from collections.abc import Sequence

import torch

from models.loop.token_loop import TokenLoop
from models.registry import FLOW
from models.requests.request import Request, Sampling
from models.sampling.flow import FlowMap
from models.students.config import StudentConfig
from models.students.sample import Images, finish, sample
from models.students.scale_config import ScaleStudentConfig


class Mixed:
    """A student, and the token loop of the target that it was made for.

    `first`, `last`: the range, from the token `first` to the one before `last`; a pass of the
    student may begin after so many tokens.
    """

    def __init__(
        self, student: Images, chart: FlowMap, loop: TokenLoop, first: int, last: int
    ) -> None:
        self._student, self._chart, self._loop = student, chart, loop
        self._first, self._last = first, last

    def images(
        self, classes: torch.Tensor, seeds: Sequence[int], noise: torch.Tensor, steps: int = 1
    ) -> torch.Tensor:
        """Images in `passes(steps)` passes.

        Args:
            classes: [B] int64. seeds: B of them. noise: [B, n, C], that of the seeds.
        Returns:
            tokens [B, n] int64.
        """
        config, last = self._student.config, self._last
        tokens = sample(self._student, self._chart, classes, noise, steps).clone()  # [B, n]
        requests = [
            Request(
                id=str(row),
                prompt=(config.vocab_size + label,),
                sampling=Sampling(max_tokens=_decoded(config, last)),
                seed=seed,
                noise=FLOW,
                generated=tuple(kept),
            )
            for row, (label, seed, kept) in enumerate(
                zip(classes.tolist(), seeds, tokens[:, : self._first].tolist(), strict=True)
            )
        ]
        found = {result.id: result.tokens for result in self._loop.run(requests)}
        tokens[:, :last] = torch.tensor([found[request.id][:last] for request in requests])
        return finish(self._student, self._chart, classes, noise, tokens, last)

    def passes(self, steps: int) -> int:
        """For an image: the student's `steps`, the target's, and the student's last one."""
        config = self._student.config
        cuts = (0, *config.bounds, config.num_tokens)
        decoded = cuts.index(_decoded(config, self._last)) - cuts.index(self._first)
        return steps + decoded + (self._last < config.num_tokens)


def _decoded(config: StudentConfig | ScaleStudentConfig, last: int) -> int:
    """Where the target stops: one that decides whole maps stops at the end only."""
    return config.num_tokens if isinstance(config, ScaleStudentConfig) else last
