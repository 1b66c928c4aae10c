"""A small U-Net trained on the digits with diffusers alone, and saved as its pipelines are: a model from outside, for minutes of one core.

    python benchmarks/diffusers_digits.py --out digits-ddpm
    scorescope examine digits-ddpm --bank digits

The loop is that of the library's tutorial: noise at random steps, mean squared error, an exponential moving average, `save_pretrained`.
Nothing of scorescope is used but the rows, the very 4,500 that `--bank digits` holds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel

from scorescope.demo import digits

BATCH, RATE, DECAY = 32, 2e-3, 0.99


def network() -> UNet2DModel:
    """170,000 parameters; 28 → 14 → 7 pixels."""
    return UNet2DModel(
        sample_size=28, in_channels=1, out_channels=1, block_out_channels=(8, 16, 32), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def train(seconds: float, prediction: str, betas: str, out: Path, seed: int) -> None:
    """Train for so much processor time and save the averaged network with its scheduler."""
    torch.manual_seed(seed)
    bank = digits()
    rows = torch.from_numpy(bank.rows).float() / 127.5 - 1
    net, scheduler = network(), DDPMScheduler(prediction_type=prediction, beta_schedule=betas)
    average = EMAModel(net.parameters(), decay=DECAY)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
    start, step, losses = time.process_time(), 0, list[float]()
    while (spent := time.process_time() - start) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - spent / seconds)
        x = rows[torch.randint(len(rows), (BATCH,))]
        noise, at = torch.randn_like(x), torch.randint(scheduler.config.num_train_timesteps, (BATCH,))
        z = scheduler.add_noise(x, noise, at)
        target = {"epsilon": noise, "sample": x}.get(prediction)
        loss = F.mse_loss(net(z, at).sample, scheduler.get_velocity(x, noise, at) if target is None else target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.step(net.parameters())
        step, losses = step + 1, [*losses[-99:], float(loss.detach())]
    average.copy_to(net.parameters())
    DDPMPipeline(net, scheduler).save_pretrained(out)
    count = sum(p.numel() for p in net.parameters())
    late = sum(losses) / len(losses)
    print(f"{out}: {count:,} parameters, {step:,} steps in {spent:.0f} s of processor time, loss {late:.4f} of the last {len(losses)}")


def main() -> None:
    """Train what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pipeline")
    parser.add_argument("--seconds", type=float, default=110, help="of processor time")
    parser.add_argument("--prediction", default="epsilon", choices=("epsilon", "sample", "v_prediction"), help="what the network says")
    parser.add_argument("--betas", default="squaredcos_cap_v2", help="beta_schedule of the scheduler")
    parser.add_argument("--seed", type=int, default=0, help="of weights and noise")
    asked = parser.parse_args()
    train(asked.seconds, asked.prediction, asked.betas, asked.out, asked.seed)


if __name__ == "__main__":
    main()
