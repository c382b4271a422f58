"""What processes share: each check runs in two of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from robustkit.engine import processes as sharing
from robustkit.engine.processes import Processes, launch
from robustkit.errors import BadValueError, RobustkitError, UnknownNameError


@pytest.fixture(autouse=True)
def _forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "SHARING", "ddp_fork")


def both(work: Callable[[Processes], Any], processes: int = 2) -> Any:
    return launch(work, (), processes=processes, device="cpu", precision="32")


def test_gradients_are_averaged_over_points() -> None:
    """Three points here and one there: not the mean of the two processes' means."""

    def work(processes: Processes) -> list[list[float]]:
        model = nn.Linear(1, 1, bias=False)
        unused = nn.Linear(1, 1, bias=False)
        x = torch.tensor([[1.0], [2.0], [3.0]]) if processes.rank == 0 else torch.tensor([[10.0]])
        processes.backward(model(x).squeeze(1))
        tally = processes.average(nn.ModuleList([model, unused]), len(x), (x.sum(),))
        assert model.weight.grad is not None
        return [tally.tolist(), model.weight.grad.flatten().tolist()]

    assert both(work) == [[4.0, 16.0], [4.0]]


def test_rows_are_gathered_in_order_though_uneven() -> None:
    def work(processes: Processes) -> list[Any]:
        rows = torch.arange(5).tensor_split(2)[processes.rank]
        return [processes.gather(rows).tolist(), processes.gather(rows > 2).tolist()]

    assert both(work) == [[0, 1, 2, 3, 4], [False, False, False, True, True]]


def test_buffers_are_the_first_ones_to_the_bit() -> None:
    def work(processes: Processes) -> float:
        norm = nn.BatchNorm1d(2)
        norm.running_mean.fill_(0.1 + processes.rank)  # type: ignore[union-attr,operator]
        processes.share_buffers(norm)
        mine = torch.tensor([float(norm.running_mean[0])])  # type: ignore[index,arg-type]
        return float(processes.total(mine))

    assert both(work) == float(torch.tensor(0.1) + torch.tensor(0.1))


def test_batches_join_to_the_whole() -> None:
    from robustkit.catalog import build
    from robustkit.data.batches import DeviceImages

    images = DeviceImages(build("dataset", "digits").split("test"))

    def work(processes: Processes) -> list[list[int]]:
        mine = processes.batches(images, 50, seed=3).epoch(1)
        return [processes.gather(batch.ids).tolist() for batch in mine]

    assert both(work) == both(work, processes=1)
    with pytest.raises(BadValueError, match="batch_size 1 is too small for 2 processes"):
        both(lambda processes: processes.batches(images, 1, seed=3))


def test_the_first_one_leads_and_its_errors_are_everyones() -> None:
    assert both(lambda processes: processes.lead(lambda: processes.rank + 7)) == 7

    def work(processes: Processes) -> None:
        def fail() -> None:
            raise BadValueError("the folder is full")

        processes.lead(fail)

    with pytest.raises(RobustkitError, match="the folder is full"):
        both(work)


def test_an_error_keeps_its_words_on_the_way() -> None:
    def work(processes: Processes) -> None:
        raise UnknownNameError("option", "stepz", ["steps"], "an option of attack 'pgd' was meant")

    with pytest.raises(RobustkitError, match="did you mean 'steps'.*pgd"):
        both(work)


def test_a_seed_is_of_its_key() -> None:
    def work(processes: Processes) -> list[float]:
        processes.seed(1, 2, processes.rank)
        apart = processes.gather(torch.rand(1)).tolist()
        processes.seed(1, "weights")
        alike = processes.gather(torch.rand(1)).tolist()
        return apart + alike

    first, second, third, fourth = both(work)
    assert first != second
    assert third == fourth
