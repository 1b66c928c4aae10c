"""What the tests of the empirical score share: banks of every kind, states on and off the shells, and agreement with the definition."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import scorescope as ss
from scorescope.empirical.partial import Partial
from scorescope.empirical.reference import reference_posterior

FIELDS = ("log_density", "entropy", "ess", "top_weight", "r_star")
FLOOR = 2e-15  # what float64 can't resolve, in units of the largest number that enters


def bank_of(kind, n=200, shape=(3, 4, 4), *, seed=0, duplicates=0, **options):
    """A bank of n rows: 8-bit (names that begin with "bytes") or of floats."""
    rng = np.random.default_rng(seed)
    d = int(np.prod(shape))
    if kind.startswith("bytes"):
        x = {
            "bytes": lambda: np.clip(rng.normal(120, 50, (n, *shape)), 0, 255),
            "bytes noise": lambda: rng.integers(0, 256, (n, *shape)),
            "bytes black and white": lambda: 255 * rng.integers(0, 2, (n, *shape)),
            "bytes constant": lambda: np.broadcast_to(rng.integers(0, 256, (n, *[1] * len(shape))), (n, *shape)),
            "bytes nearly white": lambda: 255 - 3 * (rng.random((n, *shape)) < 2 / d),
        }[kind]().astype(np.uint8)
    else:
        x = rng.standard_normal((n, *shape))
        if kind == "spectrum":
            x = x.reshape(n, d) / np.arange(1, d + 1)
            x = (x / x.std()).reshape(n, *shape)
        x = {
            "heavy": lambda: np.clip(rng.standard_t(1.5, (n, *shape)), -300, 300),
            "tiny": lambda: 1e-6 * x,
            "huge": lambda: 1e6 * x,
            "far": lambda: x + 1e3 * rng.choice([-1, 1], shape),
        }.get(kind, lambda: x)()
        x = x.astype(np.float16 if kind == "half" else np.float32)
    if duplicates:
        x = np.array(x)
        x[-duplicates:] = x[np.arange(duplicates) % 2]
    return ss.Bank.from_arrays(x, **options)


def state_of(bank, schedule, t, kind, rng):
    """One state (*shape) float64 at t: on a shell, on a near-tie, off all shells."""
    alpha, sigma = (float(v) for v in schedule(t)[:2])
    i, j = rng.integers(0, len(bank), 2)
    a, b = bank[int(i)].double(), bank[int(j)].double()
    eps = torch.from_numpy(rng.standard_normal(bank.shape))
    return {
        "shell": lambda: alpha * a + sigma * eps,
        "tie": lambda: alpha * (a + b) / 2,
        "near tie": lambda: alpha * ((0.5 + 1e-7) * a + (0.5 - 1e-7) * b) + 1e-3 * sigma * eps,
        "off": lambda: alpha * (0.7 * a + 0.3 * b) + 0.3 * sigma * eps,
        "mean": lambda: alpha * bank.mean.double() + 0.2 * bank.radius / bank.d**0.5 * eps,
        "outside": lambda: alpha * a + 3 * bank.radius / bank.d**0.5 * eps,
    }[kind]()


def states_of(bank, schedule, times, kinds, seed=0):
    """All kinds of states at all times: z (B, *shape), t (B,) and what each is called."""
    rng = np.random.default_rng(seed)
    wanted = [(kind, t) for t in times for kind in kinds if not (t == 0 and "tie" in kind)]
    z = torch.stack([state_of(bank, schedule, t, kind, rng) for kind, t in wanted])
    return z, torch.tensor([t for _, t in wanted], dtype=torch.float64), [f"{kind} at t = {t}" for kind, t in wanted]


def definition(bank, schedule, z, t, label=None):
    """The float64 definition; `label` may be a tensor."""
    t = torch.as_tensor(t, dtype=torch.float64).expand(len(z))
    if not isinstance(label, Tensor):
        return reference_posterior(bank, schedule, z, t, label)
    parts = [reference_posterior(bank, schedule, z[k : k + 1], t[k : k + 1], int(label[k])) for k in range(len(z))]
    return ss.empirical.Posterior.cat(parts)


def unresolved(bank, schedule, z, t):
    """(B,) how far the rounding of float64 alone may move a mean that hangs on near-ties."""
    alpha, sigma = schedule(torch.as_tensor(t, dtype=torch.float64).expand(len(z)))[:2]
    slope = torch.where(sigma > 0, alpha / sigma.clamp(min=1e-100) ** 2, 0.0)
    entering = z.double().flatten(1).norm(dim=1) + alpha * (bank.mean.norm() + bank.radius)
    return 2.0**-51 * (1 + bank.d / 512) * slope * entering * 4 * bank.radius**2


def agrees(post, exact, bank, tolerance, names=None, *, met=True, rounding=None, fields=FIELDS):
    """The mean is as near as was asked for, its bound holds, and if `met` the bound is as tight as was asked for, but for `rounding`."""
    names = names or [str(k) for k in range(len(post.mean))]
    size = exact.mean.flatten(1).norm(dim=1)
    floor = FLOOR * (size + bank.radius)
    scale = size.clamp(max=bank.radius, min=1e-3 * bank.radius)
    error = (post.mean - exact.mean).flatten(1).norm(dim=1)
    wanted = 1e-6 if tolerance <= 1e-6 else 1e-4
    for k, name in enumerate(names):
        assert error[k] <= post.error_bound[k] + floor[k], f"{name}: error {error[k]:.3g} is beyond its bound {post.error_bound[k]:.3g}"
        assert error[k] <= wanted * scale[k] + floor[k], f"{name}: relative error {error[k] / scale[k]:.3g}"
        if met:
            allowed = tolerance * scale[k] * (1 + 1e-9) + 10 * floor[k] + (0.0 if rounding is None else rounding[k])
            assert post.error_bound[k] <= allowed, f"{name}: bound {post.error_bound[k] / scale[k]:.3g} is wider than {tolerance}"
    close = 20 * tolerance + 1e-6
    for field in fields:
        found, sought = getattr(post, field), getattr(exact, field)
        bad = ~(((found - sought).abs() <= close * (1 + sought.abs())) | (found == sought))
        assert not bool(bad.any()), f"{field}: " + "; ".join(
            f"{names[k]}: {found[k]:.8g} is not {sought[k]:.8g}" for k in bad.nonzero().flatten().tolist()
        )
    # Which of two equals is first is for rounding to say.
    clear = exact.top_weight > 0.5 + close
    assert torch.equal(post.top_index[clear], exact.top_index[clear])


def partial_of(logit, x, index):
    """The partial of rows x (n, d) with indices (n,), from logits (B, n)."""
    found = Partial.nothing(len(logit), x.shape[1], logit.device)
    found.peak, place = logit.max(1)
    found.top = index[place]
    below = logit - found.peak[:, None]
    weight = below.exp()
    found.mass, found.moment, found.mass2 = weight.sum(1), weight @ x, weight.square().sum(1)
    # A weight of 0 times a logit of −inf counts as 0.
    found.tilt = torch.where(weight > 0, weight * below, 0.0).sum(1)
    return found
