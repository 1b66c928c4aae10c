"""Pickles to read: as NVlabs', Lightning's and others' code writes them, and some that do harm when they are opened the usual way."""

from __future__ import annotations

import argparse
import builtins
import importlib
import io
import os
import pickle
import runpy
import subprocess
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn


@contextmanager
def modules(**names):
    """Modules that are there only while something is pickled: `a__b` is a.b."""
    made = {}
    for name, held in names.items():
        name = name.replace("__", ".")
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            made.setdefault(".".join(parts[:count]), types.ModuleType(".".join(parts[:count])))
        for key, value in held.items():
            value.__module__, value.__qualname__ = name, key
            setattr(made[name], key, value)
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old


def small(seed=0):
    """A network of four parameters and a buffer."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.SiLU(), nn.Linear(4, 2))
    generator = torch.Generator().manual_seed(seed)
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator))
    return net


def edm(file=None):
    """A network snapshot as EDM writes it: each module is a function's argument, with its class's source, and storages are bytes."""

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("this would run the source inside")

    class EasyDict(dict):
        pass

    class Persistent(nn.Module):
        def __reduce__(self):
            meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": type(self).__name__}
            return _reconstruct_persistent_obj, ({**meta, "state": self.__dict__},), None

    class SongUNet(Persistent):
        def __init__(self):
            super().__init__()
            self._init_args, self._init_kwargs = (), EasyDict(channel_mult=[1, 2], embedding_type="positional")
            self.enc = small(1)
            self.register_buffer("freqs", torch.arange(3.0), persistent=False)

    class EDMPrecond(Persistent):
        def __init__(self):
            super().__init__()
            self._init_args, self._init_kwargs = (), EasyDict(img_resolution=8, sigma_data=0.5, model_type="SongUNet")
            self.sigma_data, self.model = 0.5, SongUNet()

    class EDMLoss(Persistent):
        pass

    class Plain:
        def __init__(self):
            self.P_mean = -1.2

        __reduce__ = Persistent.__reduce__

    Plain.__name__ = "EDMLoss"
    held = {"_reconstruct_persistent_obj": _reconstruct_persistent_obj}
    with modules(torch_utils__persistence=held, dnnlib__util={"EasyDict": EasyDict}):
        net = EDMPrecond()
        data = EasyDict(path="data.zip", use_labels=False, xflip=True)
        content = pickle.dumps({"ema": net, "loss_fn": Plain(), "augment_pipe": None, "dataset_kwargs": data})
    if file is not None:
        Path(file).write_bytes(content)
    return content, {f"enc.{name}": value for name, value in net.model.enc.state_dict().items()}


def lightning():
    """What a Lightning checkpoint holds, with classes that are not there when it is read."""

    class DictConfig:
        pass

    class AttributeDict(dict):
        pass

    class Callback:
        pass

    config = DictConfig()
    config.__dict__["_content"] = {"lr": 1e-4, "parent": config}
    names = {"omegaconf__dictconfig": {"DictConfig": DictConfig}, "lightning__callbacks": {"Callback": Callback}}
    names["lightning__fabric"] = {"AttributeDict": AttributeDict}
    net = small()
    states = {f"model.{name}": value for name, value in net.state_dict().items()}
    whole = {
        "epoch": 3, "state_dict": states, "callbacks": {"x": Callback()}, "hyper_parameters": AttributeDict(width=4, config=config),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}], "best": np.float32(0.5), "array": np.arange(6).reshape(2, 3),
        "args": argparse.Namespace(lr=1, sizes=[1, 2]),
    }  # fmt: skip
    return whole, names


def saved(value, names=None, **how):
    """`torch.save` into bytes."""
    stream = io.BytesIO()
    with modules(**(names or {})):
        torch.save(value, stream, **how)
    return stream.getvalue()


class Call:
    """Unpickling this calls a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def traps(canary):
    """Objects whose unpickling makes a file, or would load something."""
    code = f"open({str(canary)!r}, 'w').close()"
    return [
        Call(os.system, f"touch {canary}"),
        Call(builtins.exec, code),
        Call(builtins.eval, code),
        Call(subprocess.call, ["touch", str(canary)]),
        Call(Path.touch, canary),
        Call(runpy.run_path, str(canary)),
        Call(importlib.import_module, "antigravity"),
        Call(builtins.getattr, os, "system") if sys.version_info >= (3, 13) else Call(builtins.getattr, Path, "touch"),
        Call(torch.load, str(canary)),
        Call(np.load, str(canary)),
    ]
