import { tickText, ticks } from "./colours.js";

const GAP = 6; // px between the projections
const LEAST = 70, MOST_PART = 0.4; // height of a stack on the page: px at least, part of the page's shorter side at most

// Where the projections of a volume lie on the page: xy, below it xz, right of it yz, with common axes. All have one
// scale unless the stack is too thin or too thick for that; `stretch` says by how much z is stretched.
export function areasOf({ image, volume }, width, height) {
  if (!volume) return { xy: { left: 0, top: 0, width, height } };
  const w = image.width_um, h = image.height_um, z = volume.z_um[1] - volume.z_um[0];
  const same = Math.min((width - GAP) / (w + z), (height - GAP) / (h + z));
  const side = Math.max(LEAST, Math.min(MOST_PART * Math.min(width, height), z * same));
  const scale = Math.min((width - GAP - side) / w, (height - GAP - side) / h);
  const left = (width - w * scale - GAP - side) / 2, top = (height - h * scale - GAP - side) / 2;
  const xy = { left, top, width: w * scale, height: h * scale };
  return {
    xy, stretch: side / z / scale,
    xz: { left, top: top + xy.height + GAP, width: xy.width, height: side },
    yz: { left: left + xy.width + GAP, top, width: side, height: xy.height },
    corner: { left: left + xy.width + GAP, top: top + xy.height + GAP, width: side, height: side },
  };
}

// Positions on the page of depths z, um above the first slice: upwards in xz, to the right in yz.
export function depthPlaces({ xz, yz }, { z_um: [low, high] }) {
  return {
    up: (z) => xz.top + xz.height * (high - z) / (high - low),
    right: (z) => yz.left + yz.width * (z - low) / (high - low),
  };
}

export function within(pen, area, draw) {
  pen.save(); pen.beginPath(); pen.rect(area.left, area.top, area.width, area.height); pen.clip();
  draw(); pen.restore();
}

// The part of a projection that is in view, stretched over its area; spans without an image are hatched.
export function drawSides(pen, areas, volume, { xz, yz }, seen) {
  const { up, right } = depthPlaces(areas, volume);
  within(pen, areas.xz, () => {
    pen.drawImage(xz, seen.left, areas.xz.top, seen.width, areas.xz.height);
    for (const [low, high] of volume.missing_um) hatch(pen, areas.xz.left, up(high), areas.xz.width, up(low) - up(high));
  });
  within(pen, areas.yz, () => {
    pen.drawImage(yz, areas.yz.left, seen.top, areas.yz.width, seen.height);
    for (const [low, high] of volume.missing_um) hatch(pen, right(low), areas.yz.top, right(high) - right(low), areas.yz.height);
  });
}

function hatch(pen, left, top, width, height) {
  pen.save(); pen.beginPath(); pen.rect(left, top, width, height); pen.clip();
  pen.strokeStyle = "rgb(255 138 128 / .5)"; pen.lineWidth = 1; pen.beginPath();
  for (let at = -height; at < width; at += 8) { pen.moveTo(left + at, top + height); pen.lineTo(left + at + height, top); }
  pen.stroke(); pen.restore();
}

// Frames around the projections, their axes' names, and the scale of z in the corner between xz and yz.
export function drawAxes(pen, areas, volume) {
  const { up, right } = depthPlaces(areas, volume), { corner } = areas, [low, high] = volume.z_um;
  pen.strokeStyle = "rgb(255 255 255 / .35)"; pen.lineWidth = 1;
  for (const area of [areas.xy, areas.xz, areas.yz]) pen.strokeRect(area.left + 0.5, area.top + 0.5, area.width - 1, area.height - 1);
  pen.fillStyle = "#c8d0d8"; pen.font = "11px system-ui, sans-serif"; pen.textAlign = "left";
  for (const z of ticks(low, high, corner.height / 24)) {
    const y = up(z), x = right(z);
    pen.fillRect(areas.xz.left + areas.xz.width - 4, y, 4, 1); pen.fillRect(x, areas.yz.top + areas.yz.height - 4, 1, 4);
    if (y > corner.top + 20) pen.fillText(tickText(z), corner.left + 2, y + 4);
  }
  pen.textAlign = "center";
  for (const z of ticks(low, high, corner.width / 34)) { const x = right(z); if (x > corner.left + 6 && x < corner.left + corner.width - 6) pen.fillText(tickText(z), x, corner.top + 9); }
  pen.textAlign = "right"; pen.fillText("z, µm", corner.left + corner.width, corner.top + corner.height / 2 + 4);
  if (Math.abs(areas.stretch - 1) > 0.05) pen.fillText(`× ${+areas.stretch.toPrecision(2)}`, corner.left + corner.width, corner.top + corner.height / 2 + 18);
  pen.textAlign = "left"; pen.font = "600 11px system-ui, sans-serif";
  for (const [name, area] of [["xy", areas.xy], ["xz", areas.xz], ["yz", areas.yz]]) {
    pen.fillStyle = "rgb(0 0 0 / .55)"; pen.fillRect(area.left + 2, area.top + 2, 20, 15);
    pen.fillStyle = "#fff"; pen.fillText(name, area.left + 6, area.top + 13);
  }
}
