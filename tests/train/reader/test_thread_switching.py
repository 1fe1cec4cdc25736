import sys

import pytest

from lumbar.train.reader.thread_switching import INTERVAL_SECONDS, quick_thread_switches


@pytest.fixture
def five_milliseconds():
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


def raise_over():
    message = "over"
    raise ValueError(message)


@pytest.mark.usefixtures("five_milliseconds")
def test_threads_take_turns_more_often_until_the_end_even_of_an_error():
    with quick_thread_switches():
        assert sys.getswitchinterval() == pytest.approx(INTERVAL_SECONDS)
    assert sys.getswitchinterval() == pytest.approx(0.005)
    with pytest.raises(ValueError, match="over"), quick_thread_switches():
        raise_over()
    assert sys.getswitchinterval() == pytest.approx(0.005)


@pytest.mark.usefixtures("five_milliseconds")
def test_a_shorter_interval_stays():
    sys.setswitchinterval(0.0001)
    with quick_thread_switches():
        assert sys.getswitchinterval() == pytest.approx(0.0001, abs=2e-6)
