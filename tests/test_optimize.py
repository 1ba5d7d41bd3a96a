import pytest
import torch
import torch.nn.functional as F
import toys

from pipeline.editing.optimize import (
    SPACES,
    ByExtractor,
    ByTeacher,
    Forward,
    Rendered,
    optimize_latents,
)
from pipeline.extractors.networks import LSE
from pipeline.generators.taps import Tap
from pipeline.runtime.errors import InputError
from pipeline.teachers.labels import CELEBAMASK19, label_space
from pipeline.teachers.networks import UNet
from pipeline.teachers.registry import Teacher

FAMILIES = ("dcgan", "mobile_stylegan")
SIZE, NUM = 32, len(toys.CLASSES)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def toy_lse(generator, taps=None):
    """Random weights of a scale that gives no class everything."""
    taps = generator.taps if taps is None else taps
    lse = LSE(toys.CLASSES, taps)
    lse.set_matrix(0.2 * drawn(sum(tap.channels for tap in taps), NUM, seed=5))
    return lse.requires_grad_(False)


def toy_teacher():
    network = toys.randomize(UNet(19, (4, 6, 8)), 3)
    return Teacher(network, label_space("celebamask15"))


def entropy(segmenter, targets):
    """Mean pixel cross-entropy of each sample."""

    def loss(rendered: Rendered) -> torch.Tensor:
        logits = segmenter.logits(rendered, targets.shape[-1])
        return F.cross_entropy(logits, targets, reduction="none").mean((1, 2))

    return loss


def problem(family, space, num=3):
    """A frozen toy, and the loss of random targets under an LSE."""
    generator = toys.toy_network(family)
    segmenter = ByExtractor(toy_lse(generator))
    forward = Forward(generator, space, segmenter.taps, segmenter.images)
    targets = (drawn(num, SIZE, SIZE, seed=2).abs() * 2).long().clamp(max=NUM - 1)
    return forward, segmenter, forward.start(drawn(num, generator.z_dim)), targets


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_space_begins_at_the_ws_of_z(family, space):
    generator, z = toys.toy_network(family), drawn(4, toys.toy_network(family).z_dim)
    for psi in (1.0, 0.5):
        forward = Forward(generator, space, truncation_psi=psi)
        ws = forward(forward.start(z)).ws
        torch.testing.assert_close(ws, generator.mapping(z, psi), rtol=1e-5, atol=1e-5)


def test_layers_have_a_row_of_their_own():
    generator = toys.toy_network("mobile_stylegan")
    forward = Forward(generator, "z_per_layer")
    latents = forward.start(drawn(2, generator.z_dim))
    before = forward(latents).ws
    latents[:, 3] += 1
    changed = (forward(latents).ws != before).any(2)
    assert changed.nonzero()[:, 1].unique().tolist() == [3]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_falls_and_a_batch_goes_as_each_alone(family, space):
    forward, segmenter, latents, targets = problem(family, space)
    together = optimize_latents(forward, latents, entropy(segmenter, targets), 15, 0.01)
    assert (together.losses[-1] < together.losses[0]).all()
    for i in range(len(latents)):
        alone = optimize_latents(
            forward, latents[i : i + 1], entropy(segmenter, targets[i : i + 1]), 15, 0.01
        )
        torch.testing.assert_close(alone.last[0], together.last[i], rtol=0, atol=1e-4)
        torch.testing.assert_close(alone.losses[:, 0], together.losses[:, i], rtol=0, atol=1e-4)


def test_a_repeat_is_bit_identical_and_leaves_its_input():
    forward, segmenter, latents, targets = problem("mobile_stylegan", "z_per_layer")
    before = latents.clone()
    first, second = (
        optimize_latents(forward, latents, entropy(segmenter, targets), 8, 0.05) for _ in range(2)
    )
    assert torch.equal(latents, before) and not torch.equal(first.last, latents)
    for name in ("last", "best", "losses"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_frozen_weights_get_no_gradient():
    generator, teacher = toys.toy_network("mobile_stylegan"), toy_teacher()
    for segmenter in (ByExtractor(toy_lse(generator)), ByTeacher(teacher)):
        forward = Forward(generator, "z", tuple(segmenter.taps), segmenter.images)
        latents = forward.start(drawn(1, generator.z_dim))
        targets = torch.zeros(1, SIZE, SIZE, dtype=torch.long)
        found = optimize_latents(forward, latents, entropy(segmenter, targets), 2, 0.01)
        network = getattr(segmenter, "extractor", teacher)
        for weight in (*generator.parameters(), *network.parameters()):
            assert weight.grad is None and not weight.requires_grad
        assert not found.last.requires_grad and not found.best.requires_grad


def test_even_trainable_weights_get_no_gradient():
    forward, segmenter, latents, targets = problem("dcgan", "z")
    segmenter.extractor.requires_grad_(True)
    optimize_latents(forward, latents, entropy(segmenter, targets), 2, 0.01)
    assert all(weight.grad is None for weight in segmenter.extractor.parameters())


def test_a_bowl_is_descended_the_best_is_the_lowest_and_steps_are_kept():
    """Each sample has its own bottom; a rate so large that it overshoots separates best and last"""
    bottoms = torch.tensor([[0.0, 3.0], [-2.0, 1.0]])

    def loss(rendered):
        return (rendered.latents - bottoms).square().sum(1)

    def forward(x):
        return Rendered(x, x[:, None])

    found = optimize_latents(forward, torch.zeros(2, 2), loss, 400, 0.05, keep=(0, 7, 400))
    torch.testing.assert_close(found.last, bottoms, atol=1e-2, rtol=0)
    assert found.losses.shape == (401, 2) and sorted(found.kept) == [0, 7, 400]
    assert torch.equal(found.kept[400], found.last) and not found.kept[0].any()
    rough = optimize_latents(forward, torch.zeros(2, 2), loss, 9, 2.0)
    torch.testing.assert_close(loss(Rendered(rough.best, rough.best)), rough.losses.amin(0))
    assert (rough.losses[-1] > rough.losses.amin(0) + 1).any(), "the last is not the best here"


def test_the_first_step_is_adams():
    """The first step of Adam is the learning rate, against the sign of the gradient."""

    def loss(rendered):
        return (rendered.latents * torch.tensor([[5.0, -0.01]])).sum(1)

    found = optimize_latents(lambda x: Rendered(x, x), torch.zeros(1, 2), loss, 1, 0.3)
    torch.testing.assert_close(found.last, torch.tensor([[-0.3, 0.3]]), atol=1e-5, rtol=0)


def test_no_steps_give_the_start():
    forward, segmenter, latents, targets = problem("dcgan", "z")
    found = optimize_latents(forward, latents, entropy(segmenter, targets), 0, 0.01)
    assert torch.equal(found.last, latents) and torch.equal(found.best, latents)
    assert found.losses.shape == (1, 3)


def test_the_pass_ends_at_the_last_tap():
    generator = toys.toy_network("mobile_stylegan")
    drawn_to = []
    handles = [
        generator.get_submodule(tap.module).register_forward_hook(
            lambda *_, name=tap.name: drawn_to.append(name)
        )
        for tap in generator.taps
    ]
    coarse = generator.taps[:2]
    rendered = Forward(generator, "z", coarse)(drawn(1, generator.z_dim))
    for handle in handles:
        handle.remove()
    assert drawn_to == [tap.name for tap in coarse] and rendered.images is None
    assert list(rendered.features) == [tap.name for tap in coarse]


def test_an_extractors_logits_are_its_own():
    generator = toys.toy_network("mobile_stylegan")
    lse = toy_lse(generator)
    rendered = Forward(generator, "z", lse.taps)(drawn(2, generator.z_dim))
    for size in (20, 32, 48):
        ours = ByExtractor(lse).logits(rendered, size)
        torch.testing.assert_close(ours, lse.logits(rendered.features, size), rtol=1e-4, atol=1e-5)


def test_log_probabilities_are_logarithms_with_a_gradient_everywhere():
    teacher = toy_teacher()
    images = drawn(2, 3, 64, 64).clamp(-1, 1)
    logs, plain = teacher.log_probabilities(images, 64), teacher.probabilities(images, 64)
    torch.testing.assert_close(logs.exp(), plain, rtol=1e-4, atol=1e-6)
    assert (teacher.label(images, 64) == logs.argmax(1).numpy()).all()
    # A certain network: the probability of other classes is 0 in float32, its logarithm is not.
    teacher.network.head.bias[0] = 500.0
    steep = images.clone().requires_grad_()
    assert teacher.probabilities(images, 64)[:, 1].max() == 0
    teacher.log_probabilities(steep, 64)[:, 1].sum().backward()
    assert steep.grad.abs().sum() > 0


def test_a_selected_space_has_its_own_logarithms():
    classes = label_space("celebamask19").keep(["hair", "cloth"])
    teacher = Teacher(toys.randomize(UNet(len(CELEBAMASK19), (4, 6, 8)), 3), classes)
    images = drawn(1, 3, 64, 64).clamp(-1, 1)
    logs = teacher.log_probabilities(images, 32)
    assert logs.shape == (1, 3, 32, 32)
    torch.testing.assert_close(logs.exp(), teacher.probabilities(images, 32), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "space, tap, message",
    [
        ("s", None, "got latent space 's'; wanted one of z, z_per_layer, w_plus"),
        ("z", Tap("block9", "blocks.9", 3, 64), "got an extractor of tap block9 with 3 channels"),
    ],
)
def test_a_foreign_space_or_tap_is_refused(space, tap, message):
    with pytest.raises(InputError, match=message):
        Forward(toys.toy_network("dcgan"), space, () if tap is None else (tap,))


def test_latents_of_another_generator_are_refused():
    with pytest.raises(InputError, match="got latents of width 14; wanted width 10"):
        Forward(toys.toy_network("dcgan")).start(drawn(2, 14))


@pytest.mark.parametrize("steps, rate", [(-1, 0.1), (3, 0.0)])
def test_a_search_that_cannot_move_is_refused(steps, rate):
    with pytest.raises(InputError, match="a positive rate"):
        optimize_latents(lambda x: Rendered(x, x), drawn(1, 2), lambda r: r.ws.sum(1), steps, rate)


def bowl(rendered):
    return rendered.latents.square().sum(1)


def plain(x):
    return Rendered(x, x[:, None])


def test_a_rate_may_be_a_schedule():
    """Adam's first step is its rate; from a rate of 0 on, nothing moves."""
    start, rates = torch.ones(2, 3), [0.3, 0.1, 0.0, 0.0]
    found = optimize_latents(plain, start, bowl, 4, rates.__getitem__, keep=(1, 2, 3))
    torch.testing.assert_close(found.kept[1], start - 0.3, atol=1e-5, rtol=0)
    assert (found.kept[2] < found.kept[1]).all()
    assert torch.equal(found.kept[2], found.kept[3]) and torch.equal(found.kept[3], found.last)
    constant = optimize_latents(plain, start, bowl, 5, lambda step: 0.05)
    assert torch.equal(constant.last, optimize_latents(plain, start, bowl, 5, 0.05).last)


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_a_schedule_with_an_impossible_rate_is_refused(bad):
    with pytest.raises(InputError, match="a positive rate"):
        optimize_latents(plain, torch.ones(1, 2), bowl, 3, lambda step: bad if step == 2 else 0.1)


def test_every_step_is_shown_and_may_be_the_last():
    shown = []

    def look(step, rendered, losses):
        shown.append((step, rendered.latents.detach().clone(), losses))
        return step == 3

    watched = optimize_latents(plain, torch.ones(2, 3), bowl, 9, 0.1, on_step=look)
    alone = optimize_latents(plain, torch.ones(2, 3), bowl, 3, 0.1)
    assert [step for step, *_ in shown] == [0, 1, 2, 3]
    assert torch.equal(watched.last, alone.last) and torch.equal(watched.last, shown[-1][1])
    assert torch.equal(watched.losses, alone.losses)
    assert torch.equal(torch.stack([losses for *_, losses in shown]), alone.losses)


def test_an_error_of_who_watches_ends_the_search():
    def cancel(step, rendered, losses):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize_latents(plain, torch.ones(1, 2), bowl, 9, 0.1, on_step=cancel)
