"""What policies learn on, threads and device, and the way of arrays there and back.

    use_threads(1); use_device("cuda")       # once per process; all cores and "cpu" without it
    with learning():                         # what `train` and `unlearn` do
        rows = tensor(array); rows = rows[torch.randint(9, (4,), generator=random_numbers(seed))]
    array(rows)

Policies drive, are judged in simulation and are kept on the CPU: one observation at a time is no work for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from saferule_core.errors import SaferuleError

_CPU = torch.device("cpu")
_device = _CPU


def use_threads(count: int) -> None:
    """Let torch, and the products of numpy, use so many threads in this process.

    numpy's BLAS else hands products of more than some 9,000 numbers to all cores, whose threads then wait for the next
    one by spinning.
    """
    torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")


def use_device(name: str) -> None:
    """Let everything that is learned from now on be learned on a device of torch, such as "cpu", "cuda" or "cuda:1".

    Raises:
        SaferuleError: there is no such device here.
    """
    global _device
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device) + 1.0)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).strip().splitlines()[0]
        raise SaferuleError(f"device: expected one that torch can use here, as cpu, found {name}: {why}") from error
    _device = device


@contextmanager
def learning() -> Iterator[torch.device]:
    """Make new tensors on the chosen device inside; yields it."""
    if _device == _CPU:  # without torch's context, which every call would have to pass
        yield _CPU
        return
    with _device:
        yield _device


def tensor(values: np.ndarray) -> Tensor:
    """Return an array as a tensor on the present device; on the CPU it shares the array's memory."""
    return torch.from_numpy(values).to(torch.get_default_device())


def array(values: Tensor) -> np.ndarray:
    """Return a tensor as an array; from the CPU it shares the tensor's memory."""
    return values.detach().cpu().numpy()


def random_numbers(seed: int) -> torch.Generator:
    """Return a generator of the present device that begins with `seed`."""
    return torch.Generator(device=torch.get_default_device()).manual_seed(seed)
