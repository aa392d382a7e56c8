"""Warning for frames that are noisier than the images on which the network was trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engines.network.model_card import ModelCard
from engines.network.preparation import LEAST_LIGHT
from engines.pixel_noise import pixel_noise
from stream.messages import Frame

MUCH = 2.0
"""Times the training images' noise. False detections rise steeply beyond: 2 a frame at 2 times,
130 at 3 times."""
EVERY_FRAMES = 100
"""Frames from one check to the next: a check takes a few ms, and noise changes only with light or gain."""
LARGEST_SIDE_PX = 512
"""Side of the part in the middle that is measured, px; its 65,000 differences give the noise to 0.3 %."""


class NoiseWatch:
    """Tells `say`, once, when frames are more than `MUCH` times as noisy as a network's training images.

    With twice the noise of its training images the shipped model finds 2 false particles in 1440 x 2560 pixels,
    with three times 130.
    `noise_contrast` is the standard deviation of the training images' noise over their background.
    """

    def __init__(self, noise_contrast: float, say: Callable[[str], None]) -> None:
        self._noise_contrast = noise_contrast
        self._say = say
        self._told = False
        self._seen = 0
        pixel_noise(np.zeros((4, 4), np.float32), 1)  # compiled before the first frame

    @classmethod
    def of(cls, card: ModelCard, say: Callable[[str], None]) -> NoiseWatch | None:
        """The watch for the network of a card; None where contrasts are in units of each frame's own noise."""
        return None if card.normalisation == "noise" else cls(card.noise_contrast, say)

    def look(self, frame: Frame) -> None:
        """Check one frame in `EVERY_FRAMES`; noise changes slowly."""
        due = self._seen % EVERY_FRAMES == 0
        self._seen += 1
        if self._told or not due:
            return
        times = self.times_as_noisy(frame)
        if times > MUCH:
            self._told = True
            self._say(
                f"frame {frame.info.frame} is {times:.1f} times as noisy as the images that the network was "
                "trained on: expect false detections; give more light, or scan, calibrate and train again"
            )

    def times_as_noisy(self, frame: Frame) -> float:
        """The frame's noise over that of the training images, from the middle of the frame; 0 without light."""
        height, width = frame.image.shape
        top, left = max(0, (height - LARGEST_SIDE_PX) // 2), max(0, (width - LARGEST_SIDE_PX) // 2)
        middle = frame.image[top : top + LARGEST_SIDE_PX, left : left + LARGEST_SIDE_PX].astype(np.float32)
        light = float(np.median(middle))
        if light < LEAST_LIGHT:
            return 0.0
        return float(pixel_noise(middle, 1) / light / self._noise_contrast)
