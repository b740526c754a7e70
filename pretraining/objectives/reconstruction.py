"""What is learned: an objective turns grey images into views and views into a loss, and holds the network it trains.

``Reconstruction`` is RETINA's (Xing et al. 2025, Methods; BaderLab/RETINA pre-training script). The arms the paper
tried and dropped are ``pretraining.objectives.mae`` and ``pretraining.objectives.simclr``; beyond it is
``pretraining.objectives.distil``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_retina.network import TransUNet
from nnunetv2_retina.network.transunet import BatchNorm
from nnunetv2_retina.weights.transfer import freeze
from pretraining.augmentation.random_stream import uniforms
from pretraining.augmentation.views import AugmentationSettings, augment, draw

_SKIP_STREAM = 1
"""Second half of the generator's key, where the augmentation has 0: dropped skips are drawn independently of it."""


class Objective(nn.Module):
    """A network and the loss that trains it.

    Args:
        network: ``TransUNet(1, 1, config)``; what the checkpoint holds.
        trained: prefixes of the names of its parameters that the loss trains; all others are frozen.
    """

    measured: tuple[str, ...] = ("loss",)
    """Names of what ``measure`` returns."""
    uneven = False
    """Whether the mean of the loss is over more of one image than of another: see ``weight``."""

    def __init__(self, network: TransUNet, trained: tuple[str, ...] = ("",)) -> None:
        super().__init__()
        self.network = network
        self.trained = trained
        self.inherited: tuple[str, ...] = ()
        """Prefixes of what was trained before, where the network did not start at random."""
        freeze(network, tuple(name for name, _ in network.named_parameters() if not name.startswith(trained)))

    def begin(self, images: Tensor, seed: int) -> None:
        """Take from a fixed sample of the training images, (B, H, W) uint8, what the loss needs to know of them all.

        Called once, before the first step; what is taken is part of ``state_dict()``, so that a continued run has it.
        """

    def prepare(self, images: Tensor, seed: int, first: int) -> Sequence[Tensor]:
        """Draw views of some images at random; without gradient.

        Args:
            images: (B, H, W) uint8, on the device where the views are wanted.
            seed: of the run.
            first: position of the first image in the run's stream. What an image undergoes depends on the seed and
                its position alone, not on how the stream is cut into batches.

        Returns:
            The arguments of ``forward``.
        """
        raise NotImplementedError

    def forward(self, *views: Tensor) -> Tensor:
        """Return the mean loss: a float32 scalar."""
        raise NotImplementedError

    def weight(self, *views: Tensor) -> Tensor:
        """Return over how much the loss of these views is the mean: the loss of a batch is that of its parts, so
        weighted. A scalar; by default the number of images."""
        return torch.tensor(float(len(views[0])))

    def measure(self, *views: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what is reported of held-out images: sums and counts to divide them by, ``loss`` among them."""
        count = torch.tensor(float(len(views[0])))
        return {"loss": (self(*views) * count, count)}

    def pictures(self, *views: Tensor) -> Mapping[str, Tensor] | None:
        """Return images that show what was learned, by title: (B, H, W) each; None where there is nothing to see."""
        return None


def group_batch_norms(network: nn.Module, together: int | None) -> None:
    """Let each batch norm see so many images together; None: all that are computed at once."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.together = together


class Reconstruction(Objective):
    """Restore a degraded image: mean squared error between the network's output and the clean image.

    The published loss is over all pixels with every skip connection in place. Off by default, beyond the paper:

    Args:
        network: as above.
        settings: the augmentation.
        together: images that a batch norm sees together, see ``BatchNorm``; None: all that are computed at once.
        masked_loss: count only pixels whose grey level was changed: the mean over those of the whole batch, in
            whatever parts it is computed; an unchanged image counts nothing.
        skip_drop: probability with which each skip connection of each image is dropped (and the others scaled by
            ``1 / (1 - skip_drop)``, as dropout does): the paper warns that skips let the input bypass the deep layers.
            At 1 nothing reaches the decoder but the tokens.
        two_terms: add the loss of the output without any skip connection, from the tokens alone, to that with them.
    """

    measured = ("loss", "hole_loss", "unrestored_loss", "affine_free_loss", "unrestored_affine_free_loss")

    def __init__(
        self,
        network: TransUNet,
        settings: AugmentationSettings | None = None,
        *,
        together: int | None = None,
        masked_loss: bool = False,
        skip_drop: float = 0.0,
        two_terms: bool = False,
    ) -> None:
        super().__init__(network)
        self.settings = settings or AugmentationSettings()
        self.masked_loss = self.uneven = masked_loss
        self.skip_drop = skip_drop
        self.two_terms = two_terms
        group_batch_norms(network, together)

    @torch.no_grad()
    def prepare(self, images: Tensor, seed: int, first: int) -> tuple[Tensor, ...]:
        """Draw input and target; see ``Objective.prepare``.

        Returns:
            input and target (B, 1, H, W) float32, changed and holes (B, 1, H, W) bool as ``augmentation.Views`` has
            them; with ``skip_drop``, also the factors of the skip connections, (B, 3) float32, deepest first.
        """
        views = augment(images, draw(self.settings, seed, first, len(images)), self.settings)
        tensors = (views.input, views.target, views.changed, views.holes)
        return (*tensors, self._skip_factors(seed, first, images)) if self.skip_drop else tensors

    def forward(self, *views: Tensor) -> Tensor:
        image, target, changed, _, *factors = views
        loss = self._loss(self.network(image, *factors), target, changed)
        if self.two_terms:
            loss = loss + self._loss(self.network(image, *skip_factors(1, image)), target, changed)
        return loss

    def weight(self, *views: Tensor) -> Tensor:
        """Return how many pixels the loss counts."""
        return views[2].sum() if self.masked_loss else super().weight(*views)

    def _loss(self, output: Tensor, target: Tensor, changed: Tensor) -> Tensor:
        error: Tensor = (output - target).square()
        if not self.masked_loss:
            return error.mean()
        total, count = _sum(error, changed)
        return total / count.clamp(min=1)

    def measure(self, *views: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return ``loss``; ``hole_loss`` over blanked pixels alone; ``unrestored_loss``: of the input as it is.

        The affine-free ones are of the output and of the input after the best gain and offset for each image, to which
        the network's norms make it all but blind. Every skip connection is in place here, so that held-out losses
        compare runs with and without ``skip_drop``; at 1, where no weight behind a skip was ever trained, none is.
        """
        image, target, changed, holes = views[:4]
        output = self._output(image)
        error = (output - target).square()
        counted = changed if self.masked_loss else torch.ones_like(changed)
        images = torch.tensor(float(len(image)))
        return {
            "loss": _sum(error, counted),
            "hole_loss": _sum(error, holes),
            "unrestored_loss": _sum((image - target).square(), counted),
            "affine_free_loss": (affine_free_error(output, target).sum(), images),
            "unrestored_affine_free_loss": (affine_free_error(image, target).sum(), images),
        }

    @torch.no_grad()
    def pictures(self, *views: Tensor) -> dict[str, Tensor]:
        """Return input, output, target and their absolute difference."""
        image, target = views[:2]
        output = self._output(image)
        named = {"input": image, "output": output, "target": target, "|output - target|": (output - target).abs()}
        return {title: tensor[:, 0].float() for title, tensor in named.items()}

    def _output(self, image: Tensor) -> Tensor:
        """Return what the network makes of an image after the training."""
        output: Tensor = self.network(image, *skip_factors(self.skip_drop, image))
        return output

    def _skip_factors(self, seed: int, first: int, images: Tensor) -> Tensor:
        kept = uniforms(seed, _SKIP_STREAM, first, len(images), 3) >= self.skip_drop
        scale = 1 / (1 - self.skip_drop) if self.skip_drop < 1 else 0.0
        return torch.from_numpy((kept * scale).astype(np.float32)).to(images.device)


def skip_factors(skip_drop: float, image: Tensor) -> tuple[Tensor, ...]:
    """Return what a network takes beside images, (B, ...), after a training with ``skip_drop``: at 1 the factors 0 of
    the skip connections, (B, 3), else nothing."""
    return (torch.zeros(len(image), 3, device=image.device),) if skip_drop == 1 else ()


def affine_free_error(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each image, (B,) float64, after the gain and offset that make it least."""
    image, target = (
        values.double().flatten(1) - values.double().flatten(1).mean(1, keepdim=True) for values in (image, target)
    )
    explained = (image * target).mean(1).square() / image.square().mean(1).clamp(min=1e-12)
    return target.square().mean(1) - explained


def _sum(values: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over the pixels that are counted, and their number."""
    return (values * counted).sum(), counted.sum()
