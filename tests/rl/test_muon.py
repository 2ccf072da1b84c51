import pytest

torch = pytest.importorskip("torch")

from rl.muon import MuonAdam, orthogonal  # noqa: E402

pytestmark = pytest.mark.stack


class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 16)
        self.wide = torch.nn.Linear(16, 48, bias=False)
        self.tall = torch.nn.Linear(48, 16, bias=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embed(ids) + self.tall(self.wide(self.embed(ids)).relu())


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 64), (2, 64, 16)])
def test_orthogonal_keeps_directions_and_evens_out_sizes(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 100
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    sizes = torch.linalg.svdvals(orthogonal(matrices, steps=8))
    assert (sizes > 0.6).all() and (sizes < 1.3).all()
    assert torch.nn.functional.cosine_similarity(orthogonal(matrices).flatten(1), (u @ v).flatten(1)).min() > 0.9


def test_orthogonal_of_zero_is_zero() -> None:
    assert (orthogonal(torch.zeros(1, 4, 4)) == 0).all()


def test_it_steps_as_torchs_own_muon_and_adam() -> None:
    torch.manual_seed(0)
    ours, theirs = Net(), Net()
    theirs.load_state_dict(ours.state_dict())
    one = MuonAdam(ours, lr=0.01)
    matrices = [theirs.wide.weight, theirs.tall.weight]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    others = [theirs.embed.weight, theirs.tall.bias]
    adam = torch.optim.AdamW(others, lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    started = {name: weight.detach().clone() for name, weight in ours.named_parameters()}
    for _ in range(3):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in (one, muon, adam):
            optimizer.step()
    moved = {name: weight - started[name] for name, weight in ours.named_parameters()}
    expected = {name: weight - started[name] for name, weight in theirs.named_parameters()}
    for name in ("embed.weight", "tall.bias"):
        assert torch.allclose(moved[name], expected[name], atol=1e-6), name
    for name in ("wide.weight", "tall.weight"):
        assert (moved[name] - expected[name]).norm() < 0.05 * expected[name].norm(), name  # theirs works in bfloat16


def test_the_rate_follows_a_scheduler_and_the_state_can_be_saved() -> None:
    net = Net()
    optimizer = MuonAdam(net, lr=0.01)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = [weight.detach().clone() for weight in net.parameters()]
    net(torch.arange(11)).sum().backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    other = MuonAdam(net, lr=0.5)
    other.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.0, 0.0]
    other.step()
