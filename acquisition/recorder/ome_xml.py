"""The OME-XML of a recording as OME-TIFF: one that can grow, and one with the time of each image."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

from acquisition.recorder.image_writer import ImageFacts
from stream.safe_text import printable

SIZE_DIGITS = 10  # of SizeT while the file grows: 5 years at 60 images/s
OPENED = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://www.openmicroscopy.org/Schemas/OME/2016-06 '
    'http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd" '
)


class OmeXml:
    """Makes the text of the first page's description; `digits_at` is where SizeT stands in the one that grows."""

    def __init__(self, facts: ImageFacts) -> None:
        self._facts = facts
        self._uuid = f"urn:uuid:{uuid.uuid4()}"
        self.digits_at = self.while_growing().index(b'SizeT="') + len(b'SizeT="')

    def while_growing(self) -> bytes:
        """With one image; the number of images is written into it later."""
        return self._text(f"{1:0{SIZE_DIGITS}d}", "<TiffData/>")

    def complete(
        self,
        images: int,
        times_s: Sequence[float],
        exposures_ms: Sequence[float],
        heights_um: Sequence[float] = (),
    ) -> bytes:
        """With the time since the first image and the exposure time of each image, where they are known.

        `times_s` and, of volumes, `heights_um` (on the focus drive's axis) have an entry for each slice.
        """
        planes = self._facts.shape[0] if len(self._facts.shape) == 3 else 1
        first_s = min(times_s[:planes], default=math.nan)
        parts = ["<TiffData/>"]
        for page in range(images * planes):
            image, plane = divmod(page, planes)
            facts = ""
            if math.isfinite(delta_s := times_s[page] - first_s):
                facts += f' DeltaT="{delta_s!r}" DeltaTUnit="s"'
            if math.isfinite(exposures_ms[image]):
                facts += f' ExposureTime="{exposures_ms[image]!r}" ExposureTimeUnit="ms"'
            if heights_um and math.isfinite(heights_um[page]):
                facts += f' PositionZ="{heights_um[page]!r}" PositionZUnit="µm"'
            parts.append(f'<Plane TheC="0" TheZ="{plane}" TheT="{image}"{facts}/>')
        return self._text(str(images), "".join(parts))

    def _text(self, size_t: str, content: str) -> bytes:
        facts = self._facts
        *depth, height, width = facts.shape
        interval = ""
        if math.isfinite(facts.frame_rate_hz) and facts.frame_rate_hz > 0:
            interval = f' TimeIncrement="{1 / facts.frame_rate_hz!r}" TimeIncrementUnit="s"'
        size = "".join(
            f' PhysicalSize{axis}="{facts.pixel_size_um!r}" PhysicalSize{axis}Unit="µm"' for axis in "XY"
        )
        if facts.z_step_um > 0 and depth:
            size += f' PhysicalSizeZ="{facts.z_step_um!r}" PhysicalSizeZUnit="µm"'
        text = (
            f'{OPENED}UUID="{self._uuid}" Creator="liveptv">'
            f'<Image ID="Image:0" Name={quoteattr(printable(facts.name))}>'
            f"<Description>{_escaped(facts)}</Description>"
            f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{facts.dtype}" '
            f'SizeX="{width}" SizeY="{height}" SizeC="1" SizeZ="{depth[0] if depth else 1}" SizeT="{size_t}" '
            f'BigEndian="false"{size}{interval}>'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{content}</Pixels></Image></OME>'
        )
        return text.encode() + b"\0"


def _escaped(facts: ImageFacts) -> str:
    text = printable(
        f"run {facts.run_id}; {facts.description}" if facts.description else f"run {facts.run_id}"
    )
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
