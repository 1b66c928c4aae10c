"""faiss's exact flat search for the nearest rows, and the softmax over those alone: what is taken for the empirical score elsewhere.

The search is exact; the answer is not, wherever more rows than these carry weight.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from scorescope.bench.methods.base import Method, Ready, stepwise
from scorescope.rows import Bank

TOP = 64


def lacking(device: torch.device) -> str:
    """The package faiss must be installed, and its usual build knows CPUs only."""
    if find_spec("faiss") is None:
        return "not installed (pip install 'scorescope[bench]')"
    return "" if device.type == "cpu" else "runs on a CPU only"


def prepare(bank: Bank, device: torch.device, memory: int | None) -> Ready:
    """A flat index of all rows, which also serves as their store."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(bank.d)
    for block in bank.blocks(8192):
        index.add(block.x.numpy())
    rows = torch.from_numpy(faiss.rev_swig_ptr(index.get_xb(), index.ntotal * bank.d).reshape(index.ntotal, bank.d))
    top = min(TOP, len(bank))

    def means(z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        square, found = index.search((z / alpha[:, None]).float().numpy(), top)
        scale = ((alpha / sigma) ** 2 / 2).float()[:, None]
        weight = torch.softmax(-torch.from_numpy(square) * scale, 1)
        return torch.bmm(weight[:, None], rows[torch.from_numpy(found)])[:, 0]

    return stepwise(means)


METHODS = (Method(f"faiss-flat-{TOP}", 3, f"exact search for the {TOP} nearest rows, softmax over those", prepare, lacking, resident=4),)
