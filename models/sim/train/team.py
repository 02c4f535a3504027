"""Several processes that train one network: each on its own shards, with averaged gradients.

On a CPU two processes with a core each are faster than one process with two threads, because only the convolutions run on both.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed
import torch.multiprocessing


class Team:
    """One process's place among `size`. A process alone is a team as well, and pays nothing for it."""

    def __init__(self, rank: int = 0, size: int = 1, meeting: Path | None = None) -> None:
        self.rank, self.size = rank, size
        if size > 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)

    def average(self, tensors: list[torch.Tensor], number: float) -> float:
        """Averages these tensors over the team, in place, and this number, which is returned."""
        if self.size == 1:
            return number
        flat = torch.cat([*(t.reshape(-1) for t in tensors), torch.tensor([number])])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        for t, mean in zip(tensors, flat[:-1].split([t.numel() for t in tensors]), strict=True):
            t.copy_(mean.view_as(t))
        return float(flat[-1])


def _member(rank: int, size: int, meeting: Path, work: Callable, args: object) -> None:
    if len(os.sched_getaffinity(0)) >= size:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    work(args, Team(rank, size, meeting))


def run_team(size: int, work: Callable, args: object) -> None:
    """Calls `work(args, team)` in this process, or in `size` processes with a core each that meet on this machine only."""
    if size == 1:
        work(args, Team())
        return
    with tempfile.TemporaryDirectory(prefix="team-") as folder:
        torch.multiprocessing.spawn(_member, (size, Path(folder) / "meeting", work, args), nprocs=size)
