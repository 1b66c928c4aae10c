"""SiT answers as the official code does, and keeps the laws that the paper's networks have by construction."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from scorescope.nets.sit import SiT, SiTConfig, sincos_positions

DATA = Path(os.environ.get("SCORESCOPE_DATA") or Path(__file__).parents[2] / "shared" / "data")
SMALL = SiTConfig(channels=3, size=8, patch=2, width=16, depth=2, heads=2, classes=5)


def small_net(config=SMALL, scale=0.2):
    """A network with random weights everywhere, also where training starts from zero."""
    rng = torch.Generator().manual_seed(0)
    net = SiT(config).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name != "pos_embed":
                parameter.copy_(scale * torch.randn(parameter.shape, generator=rng))
    return net


def states(batch=4, config=SMALL):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(batch, config.channels, config.size, config.size, generator=rng), torch.rand(batch, generator=rng)


def test_it_answers_as_the_official_code():
    file = DATA / "reference" / "sit.npz"
    if not file.is_file():
        pytest.skip(f"the official code's answers are not at {file}; SCORESCOPE_DATA names the folder that holds reference/")
    stored = np.load(file)
    net = SiT(SiTConfig(channels=4, size=8, patch=2, width=48, depth=2, heads=3, classes=6)).eval()
    positions = net.pos_embed.clone()
    net.load_state_dict({name[2:]: torch.from_numpy(stored[name]) for name in stored.files if name.startswith("w:")})
    torch.testing.assert_close(net.pos_embed, positions, rtol=0, atol=1e-6)
    x, t, y, out = (torch.from_numpy(stored[f"io:{name}"]) for name in ("x", "t", "y", "out"))
    with torch.no_grad():
        torch.testing.assert_close(net(x, t, y), out, rtol=1e-5, atol=1e-5)
        assert int(y.max()) == 6  # the null label is among what was asked
        torch.testing.assert_close(net(x, t)[y == 6], out[y == 6], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("depth", "width", "heads", "official"),
    [(12, 384, 6, 32_963_360), (12, 768, 12, 130_512_416), (24, 1024, 16, 458_102_816), (28, 1152, 16, 675_129_632)],
)
def test_it_has_the_official_number_of_parameters(depth, width, heads, official):
    """The official counts are of a doubled output: another patch² · channels rows of the last layer, and their biases."""
    with torch.device("meta"):
        net = SiT(SiTConfig(channels=4, size=32, patch=2, width=width, depth=depth, heads=heads, classes=1000))
    assert sum(p.numel() for p in net.parameters()) == official - 2 * 2 * 4 * (width + 1)


@pytest.mark.parametrize("classes", [0, 5])
def test_it_begins_as_zero_and_can_learn_from_there(classes):
    torch.manual_seed(0)
    net = SiT(SiTConfig(channels=3, size=8, patch=2, width=16, depth=2, heads=2, classes=classes))
    z, t = states()
    out = net(z, t)
    assert torch.equal(out, torch.zeros_like(z))
    (out - z).square().mean().backward()
    assert float(net.final_layer.linear.weight.grad.abs().max()) > 0
    assert net.pos_embed.grad is None


def test_without_a_label_the_last_row_of_the_table_answers():
    net = small_net()
    z, t = states()
    null = torch.full((4,), SMALL.classes)
    with torch.no_grad():
        assert torch.equal(net(z, t), net(z, t, null))
        before = net(z, t)
        net.y_embedder.embedding_table.weight[SMALL.classes] += 1
        assert not torch.allclose(net(z, t), before)
        conditional = net(z, t, null - 1)
        net.y_embedder.embedding_table.weight[SMALL.classes] += 1
        assert torch.equal(net(z, t, null - 1), conditional)


def test_each_state_is_answered_by_itself():
    net = small_net()
    z, t = states(5)
    label = torch.tensor([0, 4, 2, 5, 1])
    with torch.no_grad():
        together = net(z, t, label)
        for k in range(5):
            torch.testing.assert_close(net(z[k : k + 1], t[k : k + 1], label[k : k + 1]), together[k : k + 1], rtol=1e-5, atol=1e-6)


def test_without_positions_permuted_patches_give_permuted_answers():
    net = small_net()
    z, t = states()
    side = SMALL.size // SMALL.patch

    def permuted(image, order):
        patches = image.unfold(2, 2, 2).unfold(3, 2, 2).reshape(4, 3, side * side, 2, 2)[:, :, order]
        return patches.reshape(4, 3, side, side, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(image.shape)

    order = torch.randperm(side * side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert float((net(permuted(z, order), t) - permuted(net(z, t), order)).abs().max()) > 1e-2
        net.pos_embed.zero_()
        torch.testing.assert_close(net(permuted(z, order), t), permuted(net(z, t), order), rtol=1e-4, atol=1e-5)


def test_a_patch_is_laid_out_rows_columns_channels():
    net = SiT(SMALL)
    with torch.no_grad():
        net.final_layer.linear.bias.copy_(torch.arange(12.0))
        out = net(*states())
    for i, j, c in np.ndindex(2, 2, 3):
        assert (out[:, c, i::2, j::2] == (i * 2 + j) * 3 + c).all()


@pytest.mark.parametrize(("side", "width"), [(4, 16), (7, 48)])
def test_positions_treat_rows_and_columns_alike(side, width):
    table = sincos_positions(side, width).reshape(side, side, 2, width // 2)
    assert torch.equal(table, table.transpose(0, 1).flip(2))
    for column in range(side):
        assert (table[:, column, 0] == table[0, column, 0]).all()
    torch.testing.assert_close(table.square().sum(3), torch.full((side, side, 2), width / 4))
    # Inner products depend on the difference of two positions only.
    flat = table.reshape(side, side, -1).double()
    torch.testing.assert_close((flat[0, 0] * flat[1, 2]).sum(), (flat[2, 1] * flat[3, 3]).sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"), [({"patch": 3}, "size 8"), ({"heads": 3}, "width 16"), ({"width": 18, "heads": 2}, "width 18")]
)
def test_shapes_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=f"{said} is not divisible"):
        SiTConfig(**(vars(SMALL) | change))
