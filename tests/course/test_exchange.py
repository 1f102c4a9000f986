"""A class written by hand against the package's: what `exchange` accepts and what it says otherwise."""

import pytest
import torch
from torch import nn

from spvit_course.checks.exchange import exchange
from spvit_mini.attention import MHSA, SPSA

BUILD = {"dim": 12, "heads": 3}
INPUTS = (torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(0)), (2, 3))


class ByHand(nn.Module):
    """Multi-head attention, a head after the other."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, grid):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        size = q.shape[-1] // self.heads
        heads = []
        for h in range(self.heads):
            one = slice(h * size, (h + 1) * size)
            weights = (q[..., one] @ k[..., one].mT / self.root(size)).softmax(-1)
            heads.append(weights @ v[..., one])
        return self.proj(torch.cat(heads, dim=-1))

    def root(self, size):
        return size**0.5


class Unscaled(ByHand):
    def root(self, size):
        return 1.0


class OtherName(ByHand):
    def __init__(self, dim, heads):
        super().__init__(dim, heads)
        self.out = self.proj
        del self.proj


class OtherShape(ByHand):
    def __init__(self, dim, heads):
        super().__init__(dim, heads)
        self.qkv = nn.Linear(dim, 4 * dim, bias=False)


class Unfinished(ByHand):
    def forward(self, x, grid):
        # YOUR CODE HERE
        raise NotImplementedError()


class Borrowed(MHSA):
    pass


def test_the_same_class_by_hand_passes():
    result = exchange(ByHand, MHSA, build=BUILD, inputs=INPUTS)
    assert str(result) == "PASS MHSA: weights fit both ways; outputs and gradients are the package's"


@pytest.mark.parametrize(
    ("student", "status", "says"),
    [
        (Unscaled, "NOT YET", "different from the expected values"),
        (OtherName, "NOT YET", "the weights do not fit: only the package has: proj.weight, proj.bias; "
                               "only yours has: out.weight, out.bias."),
        (OtherShape, "NOT YET", "the weights do not fit: of another shape: qkv.weight (48, 12)."),
        (Unfinished, "not done yet", "write your answer"),
        (Borrowed, "NOT YET", "it calls the package's own solution"),
    ],
)  # fmt: skip
def test_what_differs_is_told(student, status, says):
    result = exchange(student, MHSA, build=BUILD, inputs=INPUTS)
    assert result.status == status
    assert result.lines[0].startswith(says)


def test_gradients_of_the_weights_are_compared_too():
    class NoBiasGradient(ByHand):
        def forward(self, x, grid):
            bias = self.proj.bias
            return super().forward(x, grid) - bias + bias.detach()

    result = exchange(NoBiasGradient, MHSA, build=BUILD, inputs=INPUTS)
    assert result.lines[0].startswith("the values are right, but the gradients differ")


def test_weights_are_random_so_that_a_prior_that_starts_as_the_identity_counts():
    """A fresh SPSA gives MHSA's numbers; with random weights the class without a prior is found out by its values too."""

    class NoPrior(SPSA):
        def attend(self, q, k, v, grid):
            return MHSA.attend(self, q, k, v, grid)

    fresh, plain = SPSA(12, 3), NoPrior(12, 3)
    plain.load_state_dict(fresh.state_dict())
    torch.testing.assert_close(fresh(*INPUTS), plain(*INPUTS))

    class Same(nn.Module):
        """Has SPSA's weights but not its methods."""

        def __init__(self, dim, heads):
            super().__init__()
            self.qkv, self.proj, self.spatial = fresh.qkv, fresh.proj, fresh.spatial
            self.heads = heads

        def forward(self, x, grid):
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
            return self.proj(mixed.transpose(1, 2).flatten(2))

    result = exchange(Same, SPSA, build=BUILD, inputs=INPUTS)
    assert result.lines[0].startswith("different from the expected values")
