from lumbar.display.run_clock import RunClock


class Hands:
    """A clock that a test sets."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def test_what_is_left_is_told_by_the_epochs_that_are_done():
    hands = Hands()
    clock = RunClock(clock=hands)
    clock.start_run(10)
    hands.now_s = 30  # loading
    clock.mark()
    hands.now_s = 90
    assert clock.end_epoch(1) == "0:09:00 left of 0:10:30"
    hands.now_s = 190
    assert clock.end_epoch(2) == "0:10:40 left of 0:13:50"


def test_a_resumed_run_counts_the_epochs_that_are_left():
    hands = Hands()
    clock = RunClock(clock=hands)
    clock.start_run(10)
    hands.now_s = 60
    assert clock.end_epoch(9) == "0:01:00 left of 0:02:00"


def test_the_folds_to_come_count():
    hands = Hands()
    clock = RunClock(clock=hands)
    for fold, expected in ((0, "0:05:00 left of 0:06:00"), (2, "0:01:00 left of 0:03:00")):
        clock.start_fold(fold, 3)
        clock.start_run(2)
        hands.now_s += 60
        assert clock.end_epoch(1) == expected
