import pytest
import torch

from lumbar.train.device_tensors import as_slice, to_device


def test_on_the_host_nothing_is_copied():
    tensor = torch.arange(3)
    assert to_device(tensor, torch.device("cpu")) is tensor


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")
def test_a_gpu_gets_the_values_of_the_time_of_the_call():
    # The stream is busy: the copy comes long after the host's memory is free for others.
    torch.cuda._sleep(100_000_000)
    copies = [to_device(torch.full((1000,), n), torch.device("cuda")) for n in range(50)]
    assert [int(copy.unique()) for copy in copies] == list(range(50))


@pytest.mark.parametrize("indices", [[0], (1, 2), [3, 4, 5, 6]])
def test_a_slice_takes_what_the_indices_take(indices):
    assert list(range(9))[as_slice(indices)] == list(indices)


@pytest.mark.parametrize("indices", [[0, 2], (2, 1), [1, 1]])
def test_indices_with_gaps_or_in_another_order_are_refused(indices):
    with pytest.raises(AssertionError, match="do not follow each other"):
        as_slice(indices)
