"""The processes that hold a decoder together: sums, gathered columns, messages from the first.

Letters: T tokens, N ranks, O output width.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.nn import functional as F

FRAME = 4096  # bytes of a message that one broadcast carries
HEADER = 8  # bytes that say a message's length
FOREVER = timedelta(days=3650)  # a group without requests is silent for as long
LOOPBACK = "lo"


def share_of(size: int, rank: int, ranks: int) -> range:
    """Which of `size` equal things a rank holds: the numbers of two ranks differ by one at most."""
    return range(size * rank // ranks, size * (rank + 1) // ranks)


class Group:
    """One rank's end of a group; all ranks must call the same methods in the same order.

    Works with any process group of torch.distributed whose ranks are on one node.
    """

    def __init__(self, processes: Any) -> None:
        """`processes`: a ProcessGroup, or one of its backends."""
        self._processes = processes
        self.rank, self.size = int(processes.rank()), int(processes.size())

    def add(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of all ranks' x [T, O].

        On CPU the terms are added in the order of the ranks, in float32, and rounded once: an
        element's sum does not depend on the shape of x. On CUDA the order is NCCL's.
        """
        if not x.is_cpu:
            total = x.contiguous()
            self._processes.allreduce([total]).wait()
            return total
        first, *others = self.gather(x)
        if not others:
            return first
        total = first.float()
        for other in others:
            total = total + other
        return total.to(x.dtype)

    def gather(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The x of every rank, in their order; all have the same shape."""
        if self.size == 1:
            return [x]
        found = [x.new_empty(x.shape) for _ in range(self.size)]
        self._processes.allgather([found], [x.contiguous()]).wait()
        return found

    def concat(self, x: torch.Tensor, whole: int) -> torch.Tensor:
        """The x [..., O] of every rank side by side [..., whole]: O is the rank's share of it."""
        shares = [len(share_of(whole, rank, self.size)) for rank in range(self.size)]
        parts = self.gather(F.pad(x, (0, max(shares) - x.shape[-1])))
        cut = [part[..., :share] for part, share in zip(parts, shares, strict=True)]
        return torch.cat(cut, dim=-1)

    def meet(self) -> None:
        """Wait until all ranks are here."""
        self.gather(torch.zeros(1))

    def tell(self, data: bytes) -> None:
        """Send a message to all other ranks, which `hear` it. Only the first rank tells."""
        frame = np.zeros(FRAME, dtype=np.uint8)
        frame[:HEADER] = np.frombuffer(len(data).to_bytes(HEADER, "little"), dtype=np.uint8)
        content = np.frombuffer(data, dtype=np.uint8)
        begin, rest = content[: FRAME - HEADER], content[FRAME - HEADER :]
        frame[HEADER : HEADER + len(begin)] = begin
        self._broadcast(torch.from_numpy(frame))
        if len(rest):
            self._broadcast(torch.from_numpy(rest.copy()))

    def hear(self) -> bytes:
        """Wait for the first rank's next message. Raises RuntimeError if it ends."""
        frame = torch.empty(FRAME, dtype=torch.uint8)
        self._broadcast(frame)
        data = frame.numpy().tobytes()
        length, data = int.from_bytes(data[:HEADER], "little"), data[HEADER:]
        if length > len(data):
            rest = torch.empty(length - len(data), dtype=torch.uint8)
            self._broadcast(rest)
            data += rest.numpy().tobytes()
        return data[:length]

    def _broadcast(self, tensor: torch.Tensor) -> None:
        """From the first rank."""
        options = distributed.BroadcastOptions()
        options.rootRank, options.rootTensor = 0, 0
        self._processes.broadcast([tensor], options).wait()


def join(meeting: Path, rank: int, size: int, device: torch.device) -> Group:
    """Make this process a rank of the group that meets at the file `meeting`, and wait for all.

    The file must be on a disk that all ranks see, and not exist before. Messages and CPU tensors
    go over the loopback interface, CUDA tensors over NCCL. A process joins one group in its life.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(
        backend,
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=size,
        timeout=FOREVER,
    )
    return Group(distributed.group.WORLD)
