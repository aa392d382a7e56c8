"""The planes of an OME-TIFF in one or several files, by its XML, which may be in a companion file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from acquisition.stacks.claimed_size import check_count, check_size
from acquisition.stacks.library_errors import plain
from acquisition.stacks.plane_table import Coordinates, Place, PlaneTable
from acquisition.stacks.video_choice import listed
from stream.errors import SourceError

XML_SUFFIXES = (".ome", ".ome.xml")
MOST_XML_BYTES = 2**30
"""Largest OME-XML; that of a million planes has a third of this."""
SMALLEST_PAGE_BYTES = 64
"""Smallest page in a TIFF file: five tags of 12 bytes."""
AXES = "CZT"
MOST_BEFORE_OME = 10_000
"""Most characters before the OME element: declarations and comments."""


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One `Image` of the XML: size of its planes and length of each axis; `data` are its `TiffData`."""

    name: str
    pixels: ElementTree.Element
    order: str
    sizes: dict[str, int]
    shape: tuple[int, int]
    pixel_type: str
    samples: int
    data: tuple[ElementTree.Element, ...]

    @property
    def planes(self) -> int:
        """Number of planes that there should be."""
        return self.sizes["C"] * self.sizes["Z"] * self.sizes["T"]


def is_ome_xml(path: Path) -> bool:
    """Whether a file is OME-XML by its name, such as `NAME.companion.ome`."""
    return path.name.lower().endswith(XML_SUFFIXES)


def read_ome_xml(path: Path) -> ElementTree.Element:
    """The root of an OME-XML file, or of the XML in a TIFF. Raises `SourceError`."""
    try:
        if not is_ome_xml(path):
            with tifffile.TiffFile(path) as file:
                text: str | bytes = file.ome_metadata or ""
        elif path.stat().st_size > MOST_XML_BYTES:
            raise SourceError(f"{path} is too large for OME-XML; it is damaged")
        else:
            text = path.read_bytes()
        return ElementTree.fromstring(text)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"the OME-XML in {path} cannot be read ({plain(error)}); copy it again") from error


def parse_ome(text: str | None) -> ElementTree.Element | None:
    """The root of an OME-XML text; None if it cannot be parsed."""
    try:
        return ElementTree.fromstring(text or "")
    except ElementTree.ParseError:
        return None


def ome_problem(file: tifffile.TiffFile) -> str:
    """Why the OME-XML in a TIFF does not describe its images; "" without OME-XML."""
    page = file.pages.first
    text = page.description.lstrip("\ufeff \n\r\t")
    if not (text.startswith("<") and "<OME" in text[:MOST_BEFORE_OME]):
        return ""
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        return plain(error)
    pixels = next((element for element in root.iter() if element.tag.endswith("Pixels")), None)
    if pixels is None:
        return "it names no images"
    said = f"{pixels.get('SizeX')} x {pixels.get('SizeY')}"
    there = f"{page.imagewidth} x {page.imagelength}"
    return f"it says {said} pixels, the images have {there}" if said != there else "it names no pages"


def main_root(path: Path, root: ElementTree.Element) -> tuple[ElementTree.Element, Path]:
    """The XML that describes the whole set, and its file; the XML of a part may only name that file.

    Raises `SourceError` if the file is missing.
    """
    only = root.find(f"{_namespace(root)}BinaryOnly")
    if only is None:
        return root, path
    name = _plain_name(only.get("MetadataFile", ""))
    main = path.parent / name
    if not name or main == path or not main.is_file():
        raise SourceError(
            f"{path} belongs to a set of files that is described in {name or 'another file'}, which is missing; "
            "put all files of the set into one folder"
        )
    found = read_ome_xml(main)
    if found.find(f"{_namespace(found)}BinaryOnly") is not None:
        raise SourceError(f"neither {path.name} nor {main} describes the set of files; copy it again")
    return found, main


def ome_images(path: Path, root: ElementTree.Element) -> list[OmeImage]:
    """The images of an OME-XML. Raises `SourceError` for impossible sizes."""
    space = _namespace(root)
    images = []
    for element in root.findall(f"{space}Image"):
        pixels = element.find(f"{space}Pixels")
        if pixels is None:
            continue
        sizes = {axis: _whole(path, pixels, f"Size{axis}") for axis in "CZTYX"}
        channels = pixels.findall(f"{space}Channel")
        samples = max((_whole(path, channel, "SamplesPerPixel", 1) for channel in channels), default=1)
        if samples > 1 and sizes["C"] % samples == 0:
            sizes["C"] //= samples
        for axis in AXES:
            check_count(path, sizes[axis])
        check_count(path, sizes["C"] * sizes["Z"] * sizes["T"])
        check_size(path, sizes["Y"], sizes["X"])
        order = pixels.get("DimensionOrder", "XYCZT")[2:]
        images.append(
            OmeImage(
                name=element.get("Name", ""),
                pixels=pixels,
                order=order if sorted(order) == sorted(AXES) else AXES,
                sizes={axis: sizes[axis] for axis in AXES},
                shape=(sizes["Y"], sizes["X"]),
                pixel_type=pixels.get("Type", ""),
                samples=samples,
                data=tuple(pixels.findall(f"{space}TiffData")),
            )
        )
    return images


def ome_table(
    path: Path, root: ElementTree.Element, described_in: Path, file: tifffile.TiffFile | None
) -> tuple[PlaneTable, list[OmeImage], list[str]]:
    """The planes, the images (positions of the table) and notes about images left out.

    `file` is the TIFF that was opened, None if the companion file was opened. Raises `SourceError`.
    """
    images, notes = _videos(path, ome_images(path, root))
    table = PlaneTable("OME-TIFF", key="position")
    table.positions = [image.name for image in images]
    if len(set(table.positions)) < len(images) or not all(table.positions):
        table.positions = [str(number) for number in range(len(images))]
    members = _Members(path, root, described_in, file)
    for number, image in enumerate(images):
        _place(table, number, image, members)
    channels = max((image.sizes["C"] for image in images), default=1)
    table.channels = [str(number) for number in range(channels)]
    if images:
        table.order = images[0].order[::-1]
    table.missing = members.missing
    if not table.places and table.missing:
        raise SourceError(
            f"{listed(table.missing)}, named in {path}, missing; put all files of the set into one folder"
        )
    table.own = {where.position for where, place in table.places.items() if place.file == path}
    return table, images, notes


def only_image(root: ElementTree.Element, image: OmeImage, channel: int) -> str:
    """The XML with only this image and channel."""
    space = _namespace(root)
    lone = ElementTree.Element(root.tag)
    kept = ElementTree.SubElement(
        ElementTree.SubElement(lone, f"{space}Image"), f"{space}Pixels", image.pixels.attrib
    )
    kept.set("SizeC", "1")
    kept.extend(
        plane for plane in image.pixels.iter(f"{space}Plane") if plane.get("TheC", "0") == str(channel)
    )
    return ElementTree.tostring(lone, "unicode")


class _Members:
    """The files of a set, found by name in the folder of its description."""

    def __init__(
        self, path: Path, root: ElementTree.Element, described_in: Path, file: tifffile.TiffFile | None
    ) -> None:
        self._path, self._file, self._root_uuid = path, file, root.get("UUID", "")
        self._own = described_in if file is None or described_in != path else path
        self._folder = described_in.parent
        self._names = {other.name.lower(): other for other in self._folder.iterdir()}
        self._pages: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        named = {_plain_name(uuid.get("FileName", "")) for uuid in root.iter(f"{_namespace(root)}UUID")} - {
            ""
        }
        gone = [name for name in named if name.lower() not in self._names]
        # a renamed file that is the only one of its set
        self._renamed = gone[0] if len(named) == len(gone) == 1 and not is_ome_xml(self._own) else ""
        self.missing: list[str] = []

    def find(self, uuid: ElementTree.Element | None) -> Path | None:
        """The file that contains planes; without a name, the file that describes them."""
        name = "" if uuid is None else _plain_name(uuid.get("FileName", ""))
        is_own = (
            uuid is None or (uuid.text or "").strip() == self._root_uuid != "" or name == self._renamed != ""
        )
        if is_own and not is_ome_xml(self._own):
            return self._own
        found = self._names.get(name.lower()) if name else None
        if found is None and (name or "an unnamed file") not in self.missing:
            self.missing.append(name or "an unnamed file")
        return found

    def pages(self, file: Path) -> int:
        """Number of pages of a file, or an upper bound if it is opened only when read."""
        if file not in self._pages:
            if self._file is not None and file == self._path:
                self._pages[file] = len(self._file.pages)
            else:
                self._pages[file] = file.stat().st_size // SMALLEST_PAGE_BYTES
        return self._pages[file]

    def count(self, file: Path) -> int:
        """Number of pages of a file, which is opened to count them."""
        if file not in self._counts:
            with tifffile.TiffFile(file) as opened:
                self._counts[file] = len(opened.pages)
        return self._counts[file]


def _place(table: PlaneTable, number: int, image: OmeImage, members: _Members) -> None:
    """Put the planes of an image into the table."""
    table.sizes[number] = image.sizes["T"], image.sizes["Z"]
    step = {}
    size = 1
    for axis in image.order:
        step[axis], size = size, size * image.sizes[axis]
    for data in image.data or (ElementTree.Element("TiffData"),):
        uuid = next((child for child in data if child.tag.endswith("UUID")), None)
        file = members.find(uuid)
        if file is None:
            continue
        first = sum(_index(data, f"First{axis}") * step[axis] for axis in AXES)
        ifd = _index(data, "IFD")
        whole = "IFD" not in data.attrib
        count = _index(data, "PlaneCount", _index(data, "NumPlanes", 0 if whole else 1))
        if count == 0:
            count = members.count(file) - ifd
        for place in range(min(count, image.planes - first)):
            plane = first + place
            if ifd + place >= members.pages(file):
                break
            c, z, t = (plane // step[axis] % image.sizes[axis] for axis in AXES)
            table.places[Coordinates(number, c, t, z)] = Place(file, ifd=ifd + place)


def _videos(path: Path, images: list[OmeImage]) -> tuple[list[OmeImage], list[str]]:
    """The images that can be the recording. Single ones of another size, such as labels, are left out and named."""
    if not images:
        raise SourceError(f"{path} contains no images")
    largest = max(images, key=lambda image: (image.planes, image.shape[0] * image.shape[1]))
    kept = [
        image
        for image in images
        if (image.shape, image.pixel_type) == (largest.shape, largest.pixel_type) or image.planes > 1
    ]
    left = [image for image in images if all(image is not other for other in kept)]
    if not left:
        return images, []
    names = listed([image.name or f"{image.shape[1]} x {image.shape[0]}" for image in left])
    return kept, [f"{len(left)} single images of another size are left out ({names})"]


def _whole(path: Path, element: ElementTree.Element, name: str, default: int | None = None) -> int:
    text = element.get(name, "" if default is None else str(default))
    if not text.strip().isdigit() or int(text) < 1:
        raise SourceError(
            f"the OME-XML of {path} has {name} {text!r}, which is not a positive number; copy it again"
        )
    return int(text)


def _index(element: ElementTree.Element, name: str, default: int = 0) -> int:
    text = element.get(name, str(default)).strip()
    return int(text) if text.isdigit() else default


def _plain_name(name: str) -> str:
    return Path(name.replace("\\", "/")).name


def _namespace(element: ElementTree.Element) -> str:
    return element.tag[: element.tag.rfind("}") + 1]
