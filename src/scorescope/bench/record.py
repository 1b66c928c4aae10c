"""bench.json: what was asked, on what, and every measurement, written anew after each so that a killed run continues.

The folder belongs to one run (`scorescope.runs`): a record may only grow under the same arguments, the same machine and the same code,
since a median over different things says nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import scorescope
from scorescope.files import write_json
from scorescope.rows import Bank
from scorescope.runs import Kind

SCHEMA, RECORD = 1, "bench.json"
KIND = Kind("a benchmark", (RECORD, "bench.svg", "bench.png"), before=(RECORD,))
PACKAGES = ("numpy", "faiss-cpu", "pykeops")


def machine(device: torch.device) -> dict[str, Any]:
    """What the seconds depend on beside the arguments."""
    return {
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "system": platform.platform(),
        "python": platform.python_version(),
        "scorescope": scorescope.__version__,
        "code": _code(),
        "torch": str(torch.__version__),
        **{name: _version(name) for name in PACKAGES},
    }


def about(bank: Bank) -> dict[str, Any]:
    """The bank in a few numbers."""
    kept = {"name": bank.name, "rows": len(bank), "shape": list(bank.shape), "stored": str(bank.rows.dtype)}
    return {**kept, "flips": bank.flips, "fingerprint": bank.fingerprint}


class Record:
    """The measurements of one folder, which is claimed already; a file that can't be read is begun again.

    Args:
        path: Of bench.json; what is there is continued.
        identity: What the folder's run shares, for who reads the file.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"schema": SCHEMA, **identity, "measurements": [], "prepare_seconds": {}, "lacking": {}}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["schema"] == SCHEMA and all("repeat" in one for one in found["measurements"]):
                self.content |= {name: found[name] for name in ("measurements", "prepare_seconds", "lacking")}

    @property
    def measurements(self) -> list[dict[str, Any]]:
        """One for each workload, method and repeat."""
        found: list[dict[str, Any]] = self.content["measurements"]
        return found

    def has(self, workload: str, method: str, repeat: int) -> bool:
        """Whether this was measured already."""
        return any((m["workload"], m["method"], m["repeat"]) == (workload, method, repeat) for m in self.measurements)

    def add(self, measurement: dict[str, Any]) -> None:
        """Keep a measurement, on disk too."""
        self.measurements.append(measurement)
        self.write()

    def write(self) -> None:
        """Write the file."""
        write_json(self.path, self.content)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _code() -> str:
    """A hash of the modules that are measured: with another engine it is another measurement."""
    digest, root = hashlib.sha256(), Path(scorescope.__file__).parent
    for path in sorted(path for part in ("bench", "empirical") for path in (root / part).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
