"""The shortest detector of your own: the centre of mass of each bright object. In the experiment file:

[detector]
file = "examples/detectors/threshold.py"
options = { level = 5.0 }
"""

import numpy as np
from scipy import ndimage


def find(image, info, level: float = 5.0):
    above = image - np.median(image)
    noise = 1.48 * np.median(np.abs(above))
    label, count = ndimage.label(above > level * noise)
    centres = ndimage.center_of_mass(above, label, range(1, count + 1))
    y_px, x_px = np.reshape(centres, (count, 2)).T
    return {"x_px": x_px, "y_px": y_px}
