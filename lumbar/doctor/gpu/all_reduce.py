"""Check the sum over processes, one per device, that training on several GPUs needs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from lumbar.doctor.result import CheckResult, failed, passed

LIMIT_SECONDS = 60.0
ELEMENTS = 2**20

CURE = (
    "see NCCL_DEBUG=INFO; try NCCL_P2P_DISABLE=1 (no peer access, often for the IOMMU), and "
    "--shm-size=1g for a container; one GPU trains without it"
)


def check_all_reduce(devices: Sequence[torch.device]) -> CheckResult:
    """Sum a tensor over one process per device, by NCCL on GPUs, else by Gloo."""
    n = len(devices)
    with TemporaryDirectory(prefix="lumbar-doctor-") as folder:
        context: Any = start_processes(  # type: ignore[no-untyped-call]
            _reduce, args=(list(devices), str(Path(folder, "meeting"))), nprocs=n, join=False
        )
        end = time.monotonic() + LIMIT_SECONDS
        try:
            while not context.join(timeout=1.0):
                if time.monotonic() > end:
                    return failed(f"no sum within {LIMIT_SECONDS:.0f} s", CURE)
        except Exception as error:
            # The text holds the traceback of the other process; its last line is the error.
            return failed(str(error).strip().splitlines()[-1], CURE)
        finally:
            for process in context.processes:
                process.kill()
    return passed(f"{n} processes, the right sum")


def _reduce(rank: int, devices: list[torch.device], meeting: str) -> None:
    device, world = devices[rank], len(devices)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{meeting}",
        world_size=world,
        rank=rank,
        timeout=timedelta(seconds=LIMIT_SECONDS),
    )
    total = torch.full((ELEMENTS,), rank + 1.0, device=device)
    distributed.all_reduce(total)
    expected = world * (world + 1) / 2
    if not bool((total == expected).all()):
        msg = f"the sum is {total.mean().item()}, expected {expected}"
        raise RuntimeError(msg)
    distributed.destroy_process_group()
