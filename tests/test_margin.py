"""The training heads: what the margin does to the loss, by hand and by definition."""

import math

import pytest
import torch
import torch.nn.functional as F

from sv.nnet.margin import MARGINS, MarginHead

SCALE = 2.0


def head_of(rows, kind, sub_centres=1):
    """A head with the given weight vectors; its length must not matter."""
    head = MarginHead(2, len(rows) // sub_centres, SCALE, kind=kind, sub_centres=sub_centres)
    head.weight.data = 3 * torch.tensor(rows)
    return head


def at(degrees):
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def loss_by_hand(target, other):
    """Cross-entropy of two classes from their cosines."""
    return math.log(1 + math.exp(SCALE * (other - target)))


def cos(degrees):
    return math.cos(math.radians(degrees))


MARGIN = math.radians(20)


@pytest.mark.parametrize(
    ("kind", "target"),
    [("aam", cos(30 + 20)), ("am", cos(30) - MARGIN), ("sub_centre_aam", cos(30 + 20))],
)
def test_the_margin_by_hand(kind, target):
    """The embedding lies at 0 degrees, its speaker at 30, the other at -70."""
    head = head_of([at(30), at(-70)], kind)
    x, y = torch.tensor([[5.0, 0.0]]), torch.tensor([0])
    plain, correct = head(x, y, 0.0)
    assert plain.item() == pytest.approx(loss_by_hand(cos(30), cos(70)), abs=1e-6)
    loss, _ = head(x, y, MARGIN)
    assert loss.item() == pytest.approx(loss_by_hand(target, cos(70)), abs=1e-6)
    assert correct == 1 and loss > plain


def test_the_nearest_sub_centre_counts_by_hand():
    """Speaker 0 at 100, 40 and 170 degrees, speaker 1 at -90, -60 and 90; an embedding at 0."""
    centres = [at(100), at(40), at(170), at(-90), at(-60), at(90)]
    head = head_of(centres, "sub_centre_aam", sub_centres=3)
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0]], requires_grad=True)
    loss, correct = head(x, torch.tensor([0, 1]), MARGIN)
    expected = loss_by_hand(cos(40 + 20), cos(60)) + loss_by_hand(cos(60 + 20), cos(40))
    assert loss.item() == pytest.approx(expected / 2, abs=1e-6)
    assert correct == 1  # the margin left out: the second is nearer to speaker 0
    loss.backward()
    moved = head.weight.grad.norm(dim=1) > 0
    assert moved.tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize("kind", MARGINS)
def test_many_speakers_by_definition(kind):
    torch.manual_seed(0)
    centres = 3 if kind == "sub_centre_aam" else 1
    head = MarginHead(16, 5, 30.0, kind=kind, sub_centres=centres)
    x, y = torch.randn(8, 16), torch.arange(8) % 5
    cosine = torch.empty(8, 5)
    for i in range(8):
        for speaker in range(5):
            own = head.weight[speaker * centres : (speaker + 1) * centres]
            cosine[i, speaker] = max(F.cosine_similarity(x[i], w, dim=0) for w in own)
    _, correct = head(x, y, 0.2)
    assert correct == (cosine.argmax(1) == y).sum()
    for i, speaker in enumerate(y):
        angle = torch.acos(cosine[i, speaker])
        cosine[i, speaker] = cosine[i, speaker] - 0.2 if kind == "am" else torch.cos(angle + 0.2)
    loss, _ = head(x, y, 0.2)
    torch.testing.assert_close(loss, F.cross_entropy(30 * cosine, y), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", MARGINS)
@pytest.mark.parametrize("sign", [1, -1])
def test_it_is_finite_and_falls_at_the_ends(sign, kind):
    """At 0 and at 180 degrees, where the angle's slope is infinite and its cosine turns."""
    head = MarginHead(4, 3, scale=30.0, kind=kind)
    x = (sign * head.weight.data[:1]).clone().requires_grad_()
    loss, _ = head(x, torch.tensor([0]), 0.2)
    loss.backward()
    assert math.isfinite(loss.item()) and torch.isfinite(x.grad).all()
    turn = torch.linspace(0, math.pi, 200)
    after = MARGINS[kind](turn.cos(), 0.2)
    assert (after.diff() < 0).all()
