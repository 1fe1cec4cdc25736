"""On a GPU: the checks that `lumbar doctor` runs there, one test each."""

import pytest
import torch

from lumbar.doctor.checks import CHECKS, run_check

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "check", [check for check in CHECKS if check.needs != "nothing"], ids=lambda check: check.name
)
def test_check_of_a_gpu(check):
    result = run_check(check).result
    assert result.state != "fail", f"{result.found}; {result.cure}"
