"""A batch in parts, and over processes: the gradient is that of the whole batch, whatever one image sees of others."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checks import known

from nnunetv2_retina.errors import RetinaError
from nnunetv2_retina.network.transunet import BatchNorm
from nnunetv2_retina.weights.checkpoint import Checkpoint
from pretraining.job import build_objective
from pretraining.loop.engine import Engine, part_size
from pretraining.loop.processes import Processes
from pretraining.loop.running_statistics import RunningStatistics
from pretraining.loop.state import _differences
from pretraining.recipe import Execution, Recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    """(4, 224, 224) uint8: smooth structures whose contrast and noise differ from image to image."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:224, :224] / 224
    waves = [30 * (i + 1) * np.sin(2 * np.pi * (rng.uniform(2, 9) * x + rng.uniform(2, 9) * y)) for i in range(4)]
    noise = rng.normal(0, 1, (4, 224, 224)) * np.array([2, 5, 10, 20])[:, None, None]
    return torch.from_numpy((120 + np.stack(waves) + noise).clip(0, 255).astype(np.uint8))


def make(micro_batch, processes=None, dtype=torch.float32, **settings):
    """An engine without dropout, whose draws are another's for every division."""
    recipe = Recipe(size="tiny", batch_size=4, iterations=2, **settings)
    objective = build_objective(recipe)
    for module in objective.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if dtype == torch.float64:
        objective.double()
        prepare = objective.prepare
        doubled = lambda *args: [v.double() if v.is_floating_point() else v for v in prepare(*args)]  # noqa: E731
        object.__setattr__(objective, "prepare", doubled)
    execution = Execution(micro_batch=micro_batch, precision="fp32")
    return Engine(objective, recipe, execution, processes or Processes(CPU))


def gradients(engine):
    return {name: p.grad.clone() for name, p in engine.objective.named_parameters() if p.grad is not None}


def stepped(images, micro_batch, **settings):
    """The loss and the gradient of the first step, and the network's running statistics after it."""
    engine = make(micro_batch, **settings)
    loss = float(engine.step(images, 0, 2))
    return loss, gradients(engine), dict(engine.objective.named_buffers())


def difference(one, other):
    """The norm of the difference of two gradients, as a share of the first."""
    assert one.keys() == other.keys()
    total = sum(value.square().sum() for value in one.values())
    return float((sum((one[name] - other[name]).square().sum() for name in one) / total).sqrt())


def test_a_batch_norm_sees_what_the_recipe_says_however_the_batch_is_divided(images):
    loss, wanted, statistics = stepped(images, 4, norm_batch=2)
    parts_loss, parts, parts_statistics = stepped(images, 2, norm_batch=2)
    assert parts_loss == pytest.approx(loss, rel=1e-5)
    assert difference(wanted, parts) < 1e-3
    assert all(torch.allclose(value, parts_statistics[name], rtol=1e-4) for name, value in statistics.items())
    _, together, _ = stepped(images, 4, norm_batch=4)
    assert difference(wanted, together) > 0.05


def test_groups_of_a_batch_norm_are_batches_of_their_own():
    torch.manual_seed(0)
    x, norm, plain = torch.randn(5, 3, 4, 4) * 3 + 1, BatchNorm(3), torch.nn.BatchNorm2d(3)
    norm.together = 2
    expected = torch.cat([plain(x[:2]), plain(x[2:4]), plain(x[4:])])
    assert torch.equal(norm(x), expected)
    assert torch.equal(known(norm.running_var), known(plain.running_var)) and norm.num_batches_tracked == 3
    assert torch.equal(norm.eval()(x), plain.eval()(x))
    assert norm.state_dict().keys() == plain.state_dict().keys()


def _average_of_means(images, settings):
    """The gradient when every image weighs the same, however few of its pixels were changed."""
    engine = make(1, **settings)
    views = engine.objective.train().prepare(images, 0, 0)
    for image in range(4):
        restored = engine.objective.network(views[0][image : image + 1])
        errors = (restored - views[1][image : image + 1]).square()
        errors[views[2][image : image + 1]].mean().div(4).backward()
    return gradients(engine)


def test_changed_pixels_are_averaged_over_the_whole_batch(images):
    # a batch norm that sees one image divides by little: roundings of float32 would hide what is compared
    settings = {"masked_loss": True, "norm_batch": 1, "dtype": torch.float64}
    images = images[:, :112, :112].contiguous()
    loss, wanted, _ = stepped(images, 4, **settings)
    parts_loss, parts, _ = stepped(images, 1, **settings)
    assert parts_loss == pytest.approx(loss, rel=1e-5)
    assert difference(wanted, parts) < 1e-6
    assert difference(wanted, _average_of_means(images, settings)) > 1e-3
    objective = make(4, **settings).objective.train()
    views = objective.prepare(images, 0, 0)
    with torch.no_grad():
        errors = (objective.network(views[0]) - views[1]).square().numpy()
    changed = views[2].numpy()
    assert loss == pytest.approx(errors[changed].mean(), rel=1e-4)
    of_parts = [error[mask].mean() if mask.any() else 0 for error, mask in zip(errors, changed, strict=True)]
    assert np.mean(of_parts) != pytest.approx(loss, rel=1e-3)


def test_the_contrast_is_with_the_whole_batch_however_it_is_divided(images):
    loss, wanted, statistics = stepped(images, 4, arm="simclr")
    for micro_batch in (1, 2):
        parts_loss, parts, parts_statistics = stepped(images, micro_batch, arm="simclr")
        assert parts_loss == pytest.approx(loss, rel=1e-5)
        assert difference(wanted, parts) < 1e-3
        assert all(torch.allclose(value, parts_statistics[name], rtol=1e-4) for name, value in statistics.items())
    engine = make(4, arm="simclr")
    engine.objective.train()(*engine.objective.prepare(images, 0, 0)).backward()
    assert difference(gradients(engine), wanted) < 1e-3
    first, second = (make(micro_batch, arm="simclr").measure(images, 0)["loss"] for micro_batch in (1, 4))
    assert torch.allclose(first, second, rtol=1e-5) and first[1] == 4


@dataclasses.dataclass(frozen=True)
class Threads(Processes):
    """Processes that are threads of this one."""

    shelf: dict[int, Any] = dataclasses.field(default_factory=dict)
    barrier: threading.Barrier | None = None

    def _everyone(self, value):
        self.shelf[self.rank] = value.clone()
        known(self.barrier).wait()
        values = [self.shelf[rank] for rank in range(self.count)]
        known(self.barrier).wait()
        return values

    def gather(self, values):
        return torch.cat(self._everyone(values))

    def average(self, tensors):
        for tensor in tensors:
            tensor.copy_(torch.stack(self._everyone(tensor)).mean(0))


def test_the_contrast_is_with_the_images_of_all_processes(images):
    loss, wanted, _ = stepped(images, 4, arm="simclr")
    barrier = threading.Barrier(2, timeout=60)
    shelf: dict[Any, Any] = {}
    results: dict[Any, Any] = {}

    def work(engine, rank):
        results[rank] = float(engine.step(images[2 * rank : 2 * rank + 2], 0, 2)), gradients(engine)

    engines = [make(1, Threads(CPU, rank, 2, None, shelf, barrier), arm="simclr") for rank in (0, 1)]
    threads = [threading.Thread(target=work, args=(engine, rank)) for rank, engine in enumerate(engines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in (0, 1):
        assert results[rank][0] == pytest.approx(loss, rel=1e-5)
        assert difference(wanted, results[rank][1]) < 1e-3


@pytest.mark.parametrize("count", [2, 3])
def test_running_statistics_are_those_of_one_process(count):
    """Of a norm that is used in the step, twice by each process, and of one that is not."""
    torch.manual_seed(0)
    images = torch.randn(12, 3, 4, 4) * torch.arange(1, 13)[:, None, None, None] + 2

    def norms():
        used = BatchNorm(3)
        used.together = 2
        return torch.nn.Sequential(used, BatchNorm(2))

    whole = norms()
    for _ in range(2):
        whole[0](images)
    shelf: dict[int, Any] = {}
    barrier = threading.Barrier(count, timeout=60)
    everyone = [norms() for _ in range(count)]

    def work(rank):
        statistics = RunningStatistics(everyone[rank], Threads(CPU, rank, count, None, shelf, barrier))
        for _ in range(2):
            with statistics.gathered():
                everyone[rank][0](images.chunk(count)[rank])

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for module in everyone:
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(module.state_dict()[name], value, msg=name)


@pytest.mark.parametrize(
    ("batch_size", "norm_batch", "together"), [(256, 16, 16), (4, 16, 4), (24, 16, 12), (34, 16, 12), (6, 4, 3)]
)
def test_a_batch_that_does_not_divide_has_almost_equal_groups(batch_size, norm_batch, together):
    recipe = Recipe(batch_size=batch_size, norm_batch=norm_batch)
    assert recipe.normed_together == recipe.seen_together == together
    assert Recipe(arm="simclr", batch_size=batch_size).seen_together == batch_size
    assert Recipe(arm="mae", batch_size=batch_size).seen_together is None


def test_parts_are_whole_groups():
    assert part_size(256, 100, 16) == 96  # six of the sixteen groups fit: parts of six, six and four
    assert part_size(40, 16, 16) == 16
    assert part_size(20, 16, 1) == 10
    assert part_size(4, 16, 4) == 4


def test_what_a_batch_norm_sees_is_not_divided():
    with pytest.raises(RetinaError, match=r"--micro-batch 2 would part the 4 images .* Give at least 4, or.*batch 2"):
        make(2)
    with pytest.raises(RetinaError, match=r"sees 16 images together, but each of 4 processes takes 8 .*--norm-batch 8"):
        Processes(CPU, count=4).share(32, Recipe(batch_size=32).normed_together)
    assert Processes(CPU, count=2).share(32, 16) == 16


def earlier(recipe, micro_batch):
    """What a run says of itself that was stopped before ``norm_batch`` was a setting."""
    recorded = {key: value for key, value in recipe.to_dict().items() if key != "norm_batch"}
    about = {"recipe": recorded, "execution": {"micro_batch": micro_batch}}
    loaded = Checkpoint(Path("latest.pth"), {}, about)
    return lambda now: _differences(loaded, now)


def test_a_run_stopped_before_goes_on_where_it_saw_the_same():
    recipe = Recipe(batch_size=256)
    assert earlier(recipe, 16)(recipe) == []
    assert earlier(recipe, 64)(recipe) == ["64 images together in a batch norm (--norm-batch) there, 16 now"]
    assert earlier(recipe, 64)(Recipe(batch_size=256, norm_batch=64)) == []
    masked = Recipe(batch_size=32, masked_loss=True)
    assert earlier(masked, 16)(masked) == ["the masked loss averaged over 16 images there, over all 32 now"]
    contrast = Recipe(arm="simclr", batch_size=256)
    assert earlier(contrast, 256)(contrast) == []
    assert earlier(contrast, 64)(contrast) == ["64 images together in a contrast there, 256 now"]
    assert earlier(Recipe(arm="mae"), 64)(Recipe(arm="mae")) == []
