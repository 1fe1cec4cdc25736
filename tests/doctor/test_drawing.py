import numpy as np
import pytest

from lumbar.doctor.host import compiled_pass as drawing
from lumbar.doctor.host.compiled_pass import check_compiled_pass


def test_compiled_pass_of_this_machine():
    assert check_compiled_pass("float32").state == "pass"
    assert check_compiled_pass("bfloat16").state == "pass"


@pytest.mark.parametrize("fault", ["shifted", "absent", "nan"])
def test_pass_that_is_wrong_fails(monkeypatch, fault):
    genuine, _ = drawing.renderer_of(drawing.torch.float32, light=True)

    def draw(out, volume, slices, matrix, numbers, key):
        if fault == "shifted":
            matrix = matrix + np.float32([[0, 0, 0.01], [0, 0, 0]])
        genuine(out, volume, slices, matrix, numbers, key)
        if fault == "absent":
            out[slices < 0] = 0.5
        if fault == "nan":
            out[0, 0, 0] = np.nan

    monkeypatch.setattr(drawing, "renderer_of", lambda *_, **__: (draw, np.dtype(np.float32)))
    found = check_compiled_pass("float32")
    assert found.state == "fail"
    assert "expected at most 1.0e-04" in found.found
    assert "numba" in found.cure
