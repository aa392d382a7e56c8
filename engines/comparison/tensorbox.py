"""The detector of Franchini & Krevor (2020), section 2.2 and Fig. 6: TensorBox with a depth.

Each region of 32 x 32 pixels has a vector of features, from which an LSTM gives four particles in turn; the early
features, interpolated around each of them, then correct its position and give a new confidence
("rezoom"). Stewart, Andriluka & Ng (2016), arXiv 1506.04878, and their program TensorBox, with position and
depth in place of their boxes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, grid_sample

from engines.comparison.inception import EARLY_CHANNELS, EARLY_STRIDE_PX, LATE_CHANNELS, Encoder
from engines.comparison.layout import CENTRE_PX, HALF_REGION_PX, OUTPUTS, REGION_PX, X, Y

STATES = 800
"""Memory states of the LSTM."""
NOT_POOLED = 700
POOL = 5
HIDDEN = 128
CORRECTION_SCALE = 0.1
"""Units of the corrections over those of the first positions, as in TensorBox."""
AROUND_PX = 8.0
"""px to either side at which early features are read; TensorBox uses a quarter of the box, a particle has none."""


class Decoder(nn.Module):
    """An LSTM (Hochreiter & Schmidhuber 1997) that sees the same features (N, inner) at each of its steps.

    Returns its outputs (N, steps, states).
    """

    def __init__(self, inner: int, states: int = STATES, steps: int = OUTPUTS) -> None:
        super().__init__()
        self.steps = steps
        self.of_input = nn.Linear(inner, 4 * states)
        self.of_state = nn.Linear(states, 4 * states, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The outputs of all steps."""
        given = self.of_input(features)
        outputs: list[torch.Tensor] = []
        memory = torch.zeros_like(given[:, : given.shape[1] // 4])
        for _ in range(self.steps):
            gates = given + self.of_state(outputs[-1]) if outputs else given
            take, forget, show, new = gates.chunk(4, dim=1)
            memory = torch.sigmoid(forget) * memory + torch.sigmoid(take) * torch.tanh(new)
            outputs.append(torch.sigmoid(show) * torch.tanh(memory))
        return torch.stack(outputs, dim=1)


def positions_px(values: torch.Tensor) -> torch.Tensor:
    """x and y in pixels (B, rows, columns, ..., 2) of values (B, rows, columns, ..., 4) of regions."""
    rows, columns = values.shape[1:3]
    extra = [1] * (values.ndim - 4)
    across = torch.arange(columns, device=values.device).view(1, 1, columns, *extra)
    down = torch.arange(rows, device=values.device).view(1, rows, 1, *extra)
    x = HALF_REGION_PX * values[..., X] + REGION_PX * across + CENTRE_PX
    y = HALF_REGION_PX * values[..., Y] + REGION_PX * down + CENTRE_PX
    return torch.stack([x, y], dim=-1)


def rezoom(early: torch.Tensor, places_px: torch.Tensor) -> torch.Tensor:
    """Early features (B, channels, H/8, W/8) around places (B, N, 2): (B, N, 4 channels).

    Linearly interpolated at the corners of a square around each place; beyond the edge, those at the edge.
    """
    height, width = early.shape[2:]
    corner = torch.tensor([-AROUND_PX, AROUND_PX], device=places_px.device, dtype=places_px.dtype)
    corners = torch.stack(torch.meshgrid(corner, corner, indexing="xy"), dim=-1).view(4, 2)
    cells = (places_px[:, :, None] + corners) / EARLY_STRIDE_PX
    last = torch.tensor([width - 1, height - 1], device=cells.device, dtype=cells.dtype)
    found = grid_sample(early, 2 * cells / last - 1, padding_mode="border", align_corners=True)
    return found.permute(0, 2, 3, 1).flatten(2)


class PaperNet(nn.Module):
    """(B, 1, H, W) contrast in standard deviations of the noise -> (B, H/32, W/32, outputs, answers, values).

    H and W are multiples of 32. `dropout` is TensorBox's, in training only.
    """

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder(LATE_CHANNELS)
        self.dropout = nn.Dropout(dropout)
        self.first = nn.ModuleList(nn.Linear(STATES, 4) for _ in range(OUTPUTS))
        inner = STATES + 4 * EARLY_CHANNELS
        self.hidden = nn.ModuleList(nn.Linear(inner, HIDDEN) for _ in range(OUTPUTS))
        self.correction = nn.ModuleList(nn.Linear(HIDDEN, 4) for _ in range(OUTPUTS))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Both answers of all outputs of all regions."""
        early, late = self.encoder(image)
        with torch.autocast(image.device.type, enabled=False):
            return self._read(early.float(), late.float())

    def _read(self, early: torch.Tensor, late: torch.Tensor) -> torch.Tensor:
        batch, _, rows, columns = late.shape
        near, wide = late[:, :NOT_POOLED], late[:, NOT_POOLED:]
        wide = avg_pool2d(wide, POOL, stride=1, padding=POOL // 2, count_include_pad=False)
        features = torch.cat([near, wide], dim=1).permute(0, 2, 3, 1).reshape(-1, LATE_CHANNELS)
        outputs = self.decoder(features)
        dropped = self.dropout(outputs)
        first = torch.stack([head(dropped[:, k]) for k, head in enumerate(self.first)], dim=1)
        first = first.view(batch, rows, columns, OUTPUTS, 4)
        around = rezoom(early, positions_px(first).view(batch, -1, 2))
        around = self.dropout(around).view(-1, OUTPUTS, around.shape[-1])
        corrected = []
        for k, (hidden, correction) in enumerate(zip(self.hidden, self.correction, strict=True)):
            seen = torch.cat([outputs[:, k], around[:, k]], dim=1)
            corrected.append(correction(self.dropout(torch.relu(hidden(seen)))))
        change = torch.stack(corrected, dim=1).view_as(first)
        # positions are corrected, the confidence is a new one
        position = first[..., X:] + CORRECTION_SCALE * change[..., X:]
        second = torch.cat([change[..., :X], position], dim=-1)
        return torch.stack([first, second], dim=-2)
