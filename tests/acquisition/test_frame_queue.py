import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.microscope.frame_queue import MIB, FrameQueue

FRAME = (512, 512)  # a quarter of a MiB


def put(queue, value):
    queue.insert_data(np.full(FRAME, value, np.uint8), {"number": value})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4))
def test_frames_come_out_whole_in_order_and_what_was_discarded_is_counted(puts, size_mb):
    queue, model, discarded = FrameQueue(size_mb), [], 0
    for number, is_put in enumerate(puts):
        if is_put:
            put(queue, number % 256)
            model.append(number % 256)
            while len(model) > 4 * size_mb:
                model.pop(0)
                discarded += 1
        else:
            popped = queue.pop_next()
            expected = model.pop(0) if model else None
            assert (popped is None) == (expected is None)
            if popped is not None:
                assert (popped[0] == expected).all()
                assert popped[1]["number"] == expected
    assert (len(queue), queue.discarded) == (len(model), discarded)
    assert queue.used_bytes == len(model) * FRAME[0] * FRAME[1]
    assert queue.overflow_occurred == (discarded > 0)


def test_a_queue_that_may_not_overwrite_refuses_the_frame():
    queue = FrameQueue(1, overwrite_on_overflow=False)
    for number in range(4):
        put(queue, number)
    with pytest.raises(BufferError):
        put(queue, 4)
    assert queue.pop_next()[1]["number"] == 0


def test_a_frame_larger_than_the_queue_is_refused():
    with pytest.raises(BufferError, match="larger"):
        FrameQueue(1).acquire_slot((2 * MIB,))


def test_a_patient_camera_waits_for_room_and_loses_nothing():
    queue = FrameQueue(1)
    queue.patient = True
    camera = threading.Thread(target=lambda: [put(queue, number) for number in range(20)])
    camera.start()
    numbers = []
    while len(numbers) < 20:
        popped = queue.pop_next()
        if popped is None:
            time.sleep(0.001)
        else:
            numbers.append(popped[1]["number"])
    camera.join()
    assert numbers == list(range(20))
    assert queue.discarded == 0


def test_a_camera_that_waits_is_let_go_when_patience_ends():
    queue = FrameQueue(1)
    queue.patient = True
    camera = threading.Thread(target=lambda: [put(queue, number) for number in range(6)])
    camera.start()
    while len(queue) < 4:
        time.sleep(0.001)
    queue.patient = False
    camera.join(240)
    assert not camera.is_alive()
    assert len(queue) == 4


def test_peeking_leaves_frames_in():
    queue = FrameQueue(1)
    for number in range(3):
        put(queue, number)
    assert queue.peek_last()[1]["number"] == 2
    assert queue.peek_nth_from_last(2)[1]["number"] == 0
    assert queue.peek_nth_from_last(3) is None
    assert len(queue) == 3
    queue.clear()
    assert queue.peek_last() is None
    assert queue.used_bytes == 0
