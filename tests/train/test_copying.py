import pytest
import torch

from lumbar.train.copying import to_device


def test_on_the_host_nothing_is_copied():
    tensor = torch.arange(3)
    assert to_device(tensor, torch.device("cpu")) is tensor


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")
def test_a_gpu_gets_the_values_that_were_there_when_it_was_asked():
    # The stream is busy: the copy comes long after the host's memory is free for others.
    torch.cuda._sleep(100_000_000)
    copies = [to_device(torch.full((1000,), n), torch.device("cuda")) for n in range(50)]
    assert [int(copy.unique()) for copy in copies] == list(range(50))
