"""A student as a drafter: it draws the whole image once, and Jacobi decoding starts from it.

The student's image takes the place of a start rule (window.py): it gives the first draft token of
each position, and the target's passes do the rest. Drawing the rest again from the tokens decided
so far costs a student's pass and gives a worse start than the target's own previous pass, so the
student draws once for a request. A start costs time where it is wrong, and changes no token.
Letters: B requests, n tokens of an image, R undecided ones of all requests, V vocabulary, C width
of a code.
"""

from collections.abc import Sequence as Several

import numpy as np
import torch

from models.batch import Ints
from models.drafting.draft import Draft, Shape
from models.drafting.drafter import DraftContext
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.registry import FLOW
from models.requests.sequence import Sequence
from models.sampling.flow import FlowMap, flow_noise
from models.sampling.noise import Purpose
from models.students.checkpoint import load_student
from models.students.methods import FLOW_MAP
from models.students.networks.frozen import FrozenStudent
from models.students.networks.raster import Student
from models.targets.target import Target
from models.verify.round import Commit, Round


class Canvases:
    """The students' images of running requests: a start rule for `JacobiDrafter`."""

    def __init__(self) -> None:
        self.images: dict[str, Ints] = {}  # [n] by request
        self._rest = Start(rule="left")

    def fill(self, sequence: Sequence, tokens: Ints, depth: int, vocab_size: int) -> Ints:
        """[depth]: the draft tokens `tokens`, cut or filled up to `depth` from the image."""
        if len(tokens) < depth:
            begin = sequence.num_generated
            more = self.images[sequence.id][begin + len(tokens) : begin + depth]
            tokens = np.concatenate([tokens, more])
        return self._rest.fill(sequence, tokens, depth, vocab_size)


class Undrawn:
    """Requests without an image: R undecided places of all of them."""

    def __init__(self, sequences: Several[Sequence], owners: Ints, size: int) -> None:
        """`owners` [B]: the requests' indices in the processor. `size`: tokens of an image."""
        self.sequences, self._owners = sequences, owners
        known = np.array([sequence.num_generated for sequence in sequences])
        tokens = np.zeros((len(sequences), size), dtype=np.int64)
        for row, sequence in zip(tokens, sequences, strict=True):
            row[: sequence.num_generated] = sequence.generated
        self.tokens, self.starts = torch.from_numpy(tokens), torch.from_numpy(known)  # [B, n], [B]
        self._where, self._places = np.nonzero(np.arange(size) >= known[:, None])  # [R], [R]
        self._levels = self._places - known[self._where]

    def classes(self, vocab_size: int) -> torch.Tensor:
        """[B] int64."""
        return torch.tensor([s.request.prompt[-1] - vocab_size for s in self.sequences])

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """[R, V] of values [B, n, V]."""
        return values[torch.from_numpy(self._where), torch.from_numpy(self._places)]

    def processed(self, logits: torch.Tensor, context: DraftContext) -> torch.Tensor:
        """[R, V]: as the target's logits will be."""
        logits = logits.to(context.processor.device)  # the student is on the CPU
        return context.processor(logits, self._owners[self._where], self._places)

    def chosen(self, values: torch.Tensor, context: DraftContext) -> torch.Tensor:
        """[B, n] tokens: the known ones, and those of values [R, V] by each request's own map."""
        values = values.to(context.processor.device)
        out, owners = self.tokens.clone(), self._owners[self._where]
        found = context.noise.choose(context.processor, values, Purpose.TOKEN, owners, self._levels)
        out[torch.from_numpy(self._where), torch.from_numpy(self._places)] = torch.from_numpy(found)
        return out


class CanvasDrafter:
    """Jacobi decoding from a student's image; for `match`."""

    max_width = 1
    remote = False
    transfer_s = 0.0
    bytes_per_entry = 0
    wants = None

    def __init__(self, student: FrozenStudent, *, name: str) -> None:
        self.name, self.passes = name, 0
        self._student, self._chart = student, FlowMap(student.codebook)
        self._size, self._kinds = student.config.num_tokens, len(student.prior)
        self._canvases = Canvases()
        self._jacobi = JacobiDrafter("shared", self._canvases)

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """Each request's window; images are drawn for requests that have none yet."""
        known = self._canvases.images
        new = [b for b, sequence in enumerate(sequences) if sequence.id not in known]
        if new:
            self._draw(
                Undrawn([sequences[b] for b in new], context.owners[new], self._size), context
            )
        return self._jacobi.propose(sequences, shape, context)

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """The target's choices are the next draft tokens."""
        self._jacobi.observe(round_, commits)

    def forget(self, request_id: str) -> None:
        """Drop the request's image and window."""
        self._canvases.images.pop(request_id, None)
        self._jacobi.forget(request_id)

    def _draw(self, new: Undrawn, context: DraftContext) -> None:
        """One pass of the student for all requests, from the tokens that each has."""
        prior = self._student.prior[new.classes(self._student.config.vocab_size) % self._kinds]
        guesses = new.chosen(new.rows(prior.log()), context)
        told = new.tokens, self._noise(new.sequences, prior, guesses), guesses, new.starts
        logits = new.rows(self._student(new.classes(self._student.config.vocab_size), *told))
        images = new.chosen(new.processed(logits, context), context).numpy()
        self.passes += 1
        for sequence, image in zip(new.sequences, images, strict=True):
            self._canvases.images[sequence.id] = image

    def _noise(
        self, sequences: Several[Sequence], prior: torch.Tensor, guesses: torch.Tensor
    ) -> torch.Tensor:
        """[B, n, C] noise for the student to read.

        Requests with the flow map have it. For others, noise is drawn that the flow map carries to
        their first guesses, so that the student reads what their own numbers make likely.
        """
        count, length = guesses.shape
        seeds = np.repeat([sequence.request.seed for sequence in sequences], length)
        own = flow_noise(seeds, np.tile(np.arange(1, length + 1), count), self._chart.width)
        own = own.view(count, length, -1)
        others = [b for b, s in enumerate(sequences) if not _flows(s)]
        if others:
            some = prior[others].flatten(0, 1), guesses[others].flatten(), own[others].flatten(0, 1)
            own[others] = self._chart.noise_of(*some).float().view(len(others), length, -1)
        return own


def _flows(sequence: Sequence) -> bool:
    """Whether the flow map chooses the request's tokens."""
    return sequence.request.noise == FLOW and sequence.request.sampling.temperature > 0


def build(config: EngineConfig, target: Target | None, **options: object) -> CanvasDrafter:
    """See `Build` in models/engine.py.

    Raises:
        UnsupportedCheckpoint: the folder holds no student, or one of another target.
    """
    student = load_student(config.drafter)
    if not isinstance(student, Student):
        told = f"its method is {student.config.method!r}; drafters are students by {FLOW_MAP!r}"
        raise UnsupportedCheckpoint(f"student {config.drafter!r} cannot draft: {told}")
    if target is not None and not _fits(student, target):
        made_for = student.config.target
        raise UnsupportedCheckpoint(
            f"student {config.drafter!r} was made for the target {made_for}, whose codes or sizes "
            f"are not those of {config.target!r}"
        )
    return CanvasDrafter(FrozenStudent(student), name=config.drafter)


def _fits(student: Student, target: Target) -> bool:
    same_size = student.config.num_tokens == target.context_length - 1  # the class is one more
    codes = target.codes
    return same_size and codes is not None and torch.equal(student.codebook, codes.cpu())
