"""A network is run at rest, in batches, on copies of the images, whatever kind of module it is; and left as it was."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.models.running import BATCH, ask, at_rest, columns, device_of, in_batches
from tests.models.kinds import KINDS, images, plain, state

OLD = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def expected(x):
    with torch.no_grad():
        return plain().eval()(x)


@OLD
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_answers_as_in_evaluation_and_is_left_as_it_was(kind):
    network, x = KINDS[kind](plain()), images(5)
    before = state(network)
    torch.testing.assert_close(in_batches(network, x, batch=2), expected(x))
    assert state(network) == before


@OLD
@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", KINDS)
def test_every_part_gets_its_own_state_back_also_after_an_error_or_an_interrupt(kind, error):
    network = KINDS[kind](plain())
    if isinstance(network, nn.Module) and (parts := [m for m in network.modules() if hasattr(m, "training")]):
        parts[-1].training = not parts[-1].training
        for p in list(network.parameters())[:1]:
            p.requires_grad_(not p.requires_grad)
    before = state(network)

    def work():
        with at_rest(network, None, network):
            assert not any(part for parts in state(network) for part in parts)
            raise error

    with pytest.raises(error):
        work()
    assert state(network) == before


def test_mixed_states_come_back():
    net = plain()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    before = state(net)
    assert len(set(before[0])) == len(set(before[1])) == 2
    in_batches(net, images())
    assert state(net) == before


def test_a_network_whose_own_train_does_more_is_switched_its_own_way():
    class Merging(nn.Linear):
        """Evaluation mode merges something into the weights, training mode takes it out; a part never trains."""

        merged = False

        def __init__(self):
            super().__init__(4, 2)
            self.norm = nn.BatchNorm1d(4)
            self.train()

        def train(self, mode=True):
            super().train(mode)
            self.merged = not mode
            self.norm.training = False
            self.norm.requires_grad_(False)
            return self

    net = Merging()
    net.norm.requires_grad_(True)
    with at_rest(net):
        assert net.merged
    assert not net.merged
    assert state(net) == ([True, False], [True] * 4)


@OLD
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_in_training_mode_cannot_be_put_to_rest_but_is_left_alone():
    trace = torch.jit.trace(plain(), images(), check_trace=False)
    before = state(trace)
    with at_rest(trace):
        pass
    assert state(trace) == before


class InPlace(nn.Module):
    """Brings images to another range where they are, as many preprocessing layers do."""

    def forward(self, x):
        x.sub_(0.2).div_(0.5)
        return x.flatten(1).square().mean(1)


def test_images_are_handed_over_as_copies():
    x = images()
    before = x.clone()
    torch.testing.assert_close(in_batches(InPlace(), x, batch=4), ((x - 0.2) / 0.5).square().flatten(1).mean(1))
    torch.testing.assert_close(ask(InPlace(), x), ((x - 0.2) / 0.5).square().flatten(1).mean(1))
    assert torch.equal(x, before)
    leaf = x.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(ask(InPlace(), leaf).sum(), leaf)
    torch.testing.assert_close(g, 8 * (x - 0.2) / 36)


def test_batches_are_no_larger_than_asked_and_go_side_by_side():
    seen = []

    def distance(a, b):
        assert not torch.is_grad_enabled()
        seen.append(len(a))
        return (a - b).flatten(1).abs().amax(1)

    a, b = images(7), images(7, seed=1)
    torch.testing.assert_close(in_batches(distance, a, b, batch=3), (a - b).flatten(1).abs().amax(1), atol=0, rtol=0)
    assert seen == [3, 3, 1]
    seen.clear()
    in_batches(distance, a.repeat(BATCH, 1, 1, 1), b.repeat(BATCH, 1, 1, 1))
    assert seen == [BATCH] * 7


def test_a_device_is_that_of_the_first_that_has_one():
    bare, buffered = nn.Flatten(), nn.Module()
    buffered.register_buffer("mean", torch.zeros(2, device="meta"))
    assert device_of(None, bare, lambda x: x) is None
    assert device_of(bare, buffered, nn.Linear(2, 2)) == torch.device("meta")
    assert device_of(nn.Linear(2, 2), buffered) == torch.device("cpu")


@pytest.mark.gpu
def test_a_network_works_where_it_is_and_answers_where_it_was_asked():
    network, x = plain().cuda(), images()
    torch.testing.assert_close(in_batches(network, x), expected(x), atol=1e-3, rtol=1e-3)
    assert in_batches(network, x.cuda()).device.type == "cpu"
    assert ask(lambda v: v, x, device=torch.device("cuda")).device.type == "cuda"


def test_a_distributed_network_is_asked_without_its_wrapper_and_trains_on(tmp_path):
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1),
                                         rank=0, world_size=1)  # fmt: skip
    try:
        network, x = nn.parallel.DistributedDataParallel(plain()), images()
        network.register_forward_pre_hook(lambda *_: pytest.fail("the wrapper was asked"))
        before = state(network)
        torch.testing.assert_close(in_batches(network, x), expected(x))
        leaf = x.clone().requires_grad_(True)
        with at_rest(network):
            torch.autograd.grad(ask(network, leaf).sum(), leaf)
        assert state(network) == before
        network._forward_pre_hooks.clear()
        for _ in range(2):
            network(x).sum().backward()
        assert all(p.grad is not None for p in network.parameters())
    finally:
        torch.distributed.destroy_process_group()


def refuse(error):
    def network(x):
        raise error

    return network


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AssertionError("expected 96 x 96 images"), "expected 96 x 96 images"),
        (AssertionError(), "AssertionError"),
        (ZeroDivisionError("no rows\n  of this kind"), "no rows of this kind"),
        (InputError("k: expected one finding"), None),
    ],
)
def test_a_network_that_fails_is_quoted_in_one_line(error, words):
    with pytest.raises(InputError) as caught:
        in_batches(refuse(error), images(), name="scan")
    assert str(caught.value) == (
        "k: expected one finding" if words is None else f"scan: failed on images of shape (6, 1, 6, 6): {words}"
    )
    assert words is None or caught.value.__cause__ is error


@OLD
def test_of_a_script_that_fails_the_last_line_is_quoted():
    with pytest.raises(InputError, match=r"^network: failed on images of shape \(6, 1, 6, 6\): RuntimeError: mat1 .*$"):
        in_batches(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(9, 2))), images())


def test_an_interrupt_is_no_failure_of_the_network():
    with pytest.raises(KeyboardInterrupt):
        in_batches(refuse(KeyboardInterrupt()), images())


@pytest.mark.parametrize(
    ("out", "n", "rows"),
    [
        (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 2, [[1, 2], [3, 4]]),
        (torch.tensor([[1.0], [2.0]]), 2, [[1], [2]]),
        (torch.tensor([1.0, 2.0]), 2, [[1], [2]]),
        (torch.tensor([1, 2]), 2, [[1], [2]]),
        (torch.tensor(1.5, dtype=torch.float64), 1, [[1.5]]),
        (torch.tensor([1.0]), 1, [[1]]),
        (torch.tensor([1.0, 2.0, 3.0]), 1, [[1, 2, 3]]),
    ],
)
def test_every_convention_of_one_row_an_image_is_read(out, n, rows):
    torch.testing.assert_close(columns(out, n), torch.tensor(rows, dtype=torch.float32))


@pytest.mark.parametrize(
    ("out", "came"),
    [
        (torch.zeros(()), r"\(\)"),
        (torch.zeros(3), r"\(3,\)"),
        (torch.zeros(1, 2), r"\(1, 2\)"),
        (torch.zeros(2, 2, 2), r"\(2, 2, 2\)"),
    ],
)
def test_what_is_not_one_row_an_image_is_refused(out, came):
    with pytest.raises(InputError, match=rf"oracle: expected logits of shape \(2, k\), got {came}"):
        columns(out, 2, "oracle")


@pytest.mark.parametrize("wrap", [lambda v: {"logits": v, "hidden": v * 0}, lambda v: (v, v * 0), lambda v: [{"a": v}]])
def test_wrapped_numbers_are_unwrapped(wrap):
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    torch.testing.assert_close(columns(wrap(rows), 2), rows)
    torch.testing.assert_close(columns(wrap(rows[0]), 1), rows[:1])


@pytest.mark.parametrize("out", [{"logits": 0}, None, {"a": torch.zeros(2, 1), "b": torch.zeros(2, 1)}])
def test_what_holds_no_numbers_is_refused(out):
    with pytest.raises(InputError, match="oracle: expected a tensor"):
        columns(out, 2, "oracle")


@pytest.mark.parametrize("threads", [8])
def test_threads_that_share_a_network_in_training_mode_are_right_and_leave_it_as_it_was(threads):
    """Eight threads ask at once, and two by turns: the answers of evaluation, and no bit of the network has changed."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 2))
    x = torch.rand(threads, 6, 1, 8, 8)
    net(x[0])
    net[0].weight.requires_grad_(False)
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes, grads = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    with at_rest(net):
        wanted = [net(one).detach() for one in x]
    start = Barrier(threads)

    def asked(i: int) -> bool:
        start.wait()
        return all(in_batches(net, x[i], batch=2).allclose(wanted[i], atol=1e-6) for _ in range(12))

    with ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(asked, range(threads)))
    first, second = at_rest(net), at_rest(net)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(m.training for m in net.modules())
    second.__exit__(None, None, None)
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == grads
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
