"""Weights for other channels and other position grids."""

import pytest
import torch

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network import NetworkConfig, TransUNet
from nnunetv2_retina.weights.adaptation import adapted, stem_kernel
from nnunetv2_retina.weights.compatibility import shapes_of


@pytest.mark.parametrize("theirs", [1, 3])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_a_kernel_gives_the_same_output_for_copies_of_one_image(theirs, channels):
    """Which is what a kernel for one grey channel sees; and the kernels of timm for three."""
    torch.manual_seed(0)
    grey, image = torch.randn(4, 1, 3, 3), torch.randn(1, 1, 8, 8)
    kernel = grey.expand(-1, theirs, -1, -1) / theirs
    made = stem_kernel(kernel, channels)
    output = torch.conv2d(image.expand(-1, channels, -1, -1), made)
    torch.testing.assert_close(output, torch.conv2d(image, grey))
    assert made.shape == (4, channels, 3, 3)


def test_kernels_are_repeated_in_order():
    kernel = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    assert stem_kernel(kernel, 5).flatten().tolist() == pytest.approx([0.6, 1.2, 1.8, 0.6, 1.2])
    assert stem_kernel(kernel, 1).flatten().tolist() == [6]


def test_nothing_else_is_changed():
    with torch.device("meta"):
        network = TransUNet(2, 1, NetworkConfig.named("tiny"))
    shapes = shapes_of(network.state_dict())
    assert adapted(network.state_dict(), shapes)[1] == {}
    wider = {**network.state_dict(), "cnn.stem.0.weight": torch.zeros(64, 3, 7, 7)}
    assert adapted(wider, shapes)[1] == {}  # another size, too: that is for check_compatible to say
    other = {**network.state_dict(), "cnn.stem.0.weight": torch.zeros(32, 4, 7, 7)}
    assert adapted(other, shapes)[1] == {}
    odd = {**network.state_dict(), "embedding.pos_embed": torch.zeros(1, 200, 96)}
    with pytest.raises(RetinaError, match=r"have 200 entries, which is no square grid"):
        adapted(odd, shapes)
