"""What experiments share: banks of data that is at hand, and networks that were trained, each once, by recipe and bank."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import xarray as xr

from scorescope.adapters import load
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.examination import examine
from scorescope.rows import Bank
from scorescope.training.draws import subset
from scorescope.training.keep import Keep
from scorescope.training.keep import place as kept
from scorescope.training.loop import Hooks, Progress, Watcher, train
from scorescope.training.recipe import Recipe


class Store:
    """A folder of trained networks, and banks by name.

    Args:
        folder: Where networks are kept; a training that was cut goes on.
        device: Where networks are trained.
        banks: Folders of banks that experiments may ask for by name, beside what comes with the package.
        files: Paths of other things that they may ask for.
    """

    def __init__(
        self, folder: str | Path, device: str = "cpu", banks: Sequence[str | Path] = (), files: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.folder, self.device, self.files = Path(folder), device, files
        self.banks = {Path(path).name.removesuffix(".bank"): Path(path) for path in banks}

    def file(self, name: str) -> str:
        """The path of that name.

        Raises:
            InputError: None was given.
        """
        if name not in self.files:
            raise InputError(f"this experiment needs {name}", f"--files {name}=PATH")
        return self.files[name]

    def bank(self, name: str) -> Bank:
        """The bank of that name: of the folders given, of the demo, or of `domain_banks`; of "NAME:100" the first hundred rows.

        Raises:
            InputError: No such bank was given.
        """
        from scorescope.demo import digits, held_out_digits
        from scorescope.experiments import domain_banks

        whole, _, count = name.partition(":")
        if count:
            return subset(self.bank(whole), np.arange(int(count)), f"{whole}-{count}")

        own: dict[str, Callable[[], Bank]] = {"digits": digits, "digits-held-out": held_out_digits}
        if name in self.banks:
            return Bank.open(self.banks[name])
        if name in own:
            return own[name]()
        if (found := domain_banks.own(name)) is not None:
            return found
        raise InputError(f"this experiment needs the bank {name}", f"scorescope bank build … --out {name}.bank, then --banks {name}.bank")

    def place(self, recipe: Recipe[Any, Any], bank: Bank) -> Path:
        """The folder of a network: its family, and a hash of its recipe and bank."""
        about = json.dumps({"recipe": recipe.record(), "bank": bank.fingerprint}, sort_keys=True)
        return self.folder / f"{recipe.family}-{bank.name}-{hashlib.sha256(about.encode()).hexdigest()[:10]}"

    def trained(
        self,
        recipe: Recipe[Any, Any],
        bank: Bank,
        tell: Callable[[float], None] | None = None,
        watchers: Sequence[Watcher] = (),
        keep: Sequence[int] = (),
        step: int | None = None,
    ) -> Denoiser:
        """The EMA network of a recipe on a bank, trained unless it was.

        Args:
            recipe: What to train.
            bank: On what.
            tell: Told the share of the steps that is done.
            watchers: Look at the network while it is trained.
            keep: Steps whose weights are kept.
            step: Which of these is wanted; the last of all unless given.

        Raises:
            InputError: The training is finished, and a step was not kept.
        """

        def report(progress: Progress) -> None:
            if tell is not None:
                tell(progress.step / progress.steps)

        place, keeper = self.place(recipe, bank), Keep(recipe, bank, keep) if keep else None
        hooks = Hooks(report, watchers=[*watchers, *([keeper] if keeper else [])])
        last = train(recipe, bank, place, device=self.device, hooks=hooks)
        if keeper:
            keeper.check(place)
        return load(last if step is None else kept(place, step)).to(self.device)

    def examined(self, models: Sequence[Denoiser], bank: str, held_out: str, plan: Mapping[str, Any]) -> xr.Dataset:
        """The results of an examination, which goes on if it was cut; experiments that ask for the same share it.

        Args:
            models: What is examined.
            bank, held_out: Names of banks, as `bank` knows them; no held-out rows where that is empty.
            plan: Options of `scorescope.examine`.
        """
        identity = {"models": [model.identity() for model in models], "bank": bank, "held_out": held_out, "plan": dict(plan)}
        name = hashlib.sha256(json.dumps(identity, sort_keys=True, default=list).encode()).hexdigest()[:10]
        unseen = self.bank(held_out) if held_out else None
        folder = self.folder.with_name("examinations") / f"{bank.replace(':', '-')}-{name}"
        return examine(list(models), self.bank(bank), held_out=unseen, out=folder, device=self.device, **plan).results


@cache
def normal(d: int, rows: int, seed: int) -> Bank:
    """Rows (d,) of a standard normal."""
    drawn = np.random.default_rng([seed, d, rows]).standard_normal((rows, d)).astype(np.float32)
    return Bank.from_arrays(drawn, name=f"normal-{d}d")


def generator(*seed: int) -> torch.Generator:
    """PyTorch's, of whole numbers."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
