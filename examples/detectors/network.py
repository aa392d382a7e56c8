"""A detector of your own: a small U-Net after DECODE (Speiser et al. 2021), in torch. In the experiment file:

[detector]
file = "examples/detectors/network.py"
options = { weights = "mine.pt", threshold = 0.5 }

`weights` is the `state_dict` of `Net`, saved by your own training: `torch.save(net.state_dict(), "mine.pt")`.
"""

import numpy as np
import torch
from torch import nn


def block(inner: int, outer: int) -> nn.Sequential:
    convolutions = nn.Conv2d(inner, outer, 3, padding=1), nn.Conv2d(outer, outer, 3, padding=1)
    return nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU())


class Net(nn.Module):
    """Maps: logit of a particle, offsets in x, y (px), z (um), brightness, log errors of x, y (px) and z (um)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down, self.deep, self.up = block(1, width), block(width, 2 * width), block(3 * width, width)
        self.out = nn.Conv2d(width, 8, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = self.down(image)
        coarse = self.deep(nn.functional.max_pool2d(fine, 2, ceil_mode=True))
        coarse = nn.functional.interpolate(coarse, size=fine.shape[-2:])
        return self.out(self.up(torch.cat([fine, coarse], 1)))


class Network:
    """A particle is where the probability has a maximum above `threshold`; the other maps say the rest there."""

    def __init__(self, weights: str, threshold: float = 0.5, device: str = "cpu") -> None:
        self.threshold, self.device = threshold, device
        self.net = Net().to(device).eval()
        self.net.load_state_dict(torch.load(weights, map_location=device, weights_only=True))

    def warmup(self, height: int, width: int, dtype: np.dtype) -> None:
        self.find(np.zeros((height, width), dtype), None)

    @torch.inference_mode()
    def find(self, image: np.ndarray, info) -> dict:
        pixels = torch.from_numpy(image.astype(np.float32)).to(self.device)
        maps = self.net(((pixels - pixels.mean()) / (pixels.std() + 1e-6))[None, None])[0]
        p = torch.sigmoid(maps[0])
        peaks = nn.functional.max_pool2d(p[None], 3, stride=1, padding=1)[0] == p
        row, column = torch.nonzero(peaks & (p > self.threshold), as_tuple=True)
        _, dx, dy, z, brightness, *errors = maps[:, row, column].cpu().numpy()
        sigma_x, sigma_y, sigma_z = np.exp(errors)
        return {
            "x_px": column.cpu().numpy() + dx, "y_px": row.cpu().numpy() + dy, "z_um": z,
            "sigma_x_px": sigma_x, "sigma_y_px": sigma_y, "sigma_z_um": sigma_z,
            "brightness": np.maximum(brightness, 0), "confidence": p[row, column].cpu().numpy(),
        }  # fmt: skip
