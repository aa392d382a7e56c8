import { depthColour, fitted } from "./colours.js";
import { areasOf, depthPlaces, drawAxes, drawSides, within } from "./projections.js";

// Seconds of a track that are drawn as its tail: long enough to see the direction, short enough not to hide particles.
const TAIL_S = 1.5;
const MAX_ZOOM = 40;

// The camera image with circles around the detections and the tails of the tracks; wheel or pinch zooms, dragging pans.
// Of a volume, its maximum projections along z, y and x, with both in all three.
export class Camera {
  constructor(stage, image, overlay, trails) {
    Object.assign(this, { stage, image, overlay, trails, shown: null, zoom: 1, x: 0.5, y: 0.5, detections: true, tails: true });
    this.pointers = new Map();
    stage.addEventListener("wheel", (event) => { event.preventDefault(); this.zoomAt(event, Math.exp(-event.deltaY / 400)); }, { passive: false });
    stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); this.pointers.set(event.pointerId, event); });
    stage.addEventListener("pointermove", (event) => this.moved(event));
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    stage.addEventListener("dblclick", () => this.whole());
    stage.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(stage);
  }

  whole() { this.zoom = 1; this.x = this.y = 0.5; this.draw(); }

  key(event) {
    const step = 0.1 / this.zoom;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) { event.preventDefault(); this.shift(...moves[event.key]); }
    else if (event.key === "+" || event.key === "-") this.zoomBy(event.key === "+" ? 1.25 : 0.8);
    else if (event.key === "0") this.whole();
  }

  zoomBy(factor) { this.zoom = Math.max(1, Math.min(MAX_ZOOM, this.zoom * factor)); this.shift(0, 0); }

  zoomAt(event, factor) {
    const { scale, left, top } = this.frame(), box = this.stage.getBoundingClientRect();
    const px = event.clientX - box.left, py = event.clientY - box.top, { width_px: w, height_px: h } = this.size();
    const at = [(px - left) / scale / w, (py - top) / scale / h], before = this.zoom;
    this.zoom = Math.max(1, Math.min(MAX_ZOOM, this.zoom * factor));
    const part = 1 - before / this.zoom;
    this.shift((at[0] - this.x) * part, (at[1] - this.y) * part);
  }

  shift(dx, dy) {
    const half = 0.5 / this.zoom, within = (v) => Math.max(half, Math.min(1 - half, v));
    this.x = within(this.x + dx); this.y = within(this.y + dy); this.draw();
  }

  moved(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const { scale } = this.frame(), { width_px: w, height_px: h } = this.size();
    if (this.pointers.size === 2) {
      const other = [...this.pointers.values()].find((p) => p.pointerId !== event.pointerId);
      const far = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
      this.zoomAt(event, far(event) / Math.max(1, far(before)));
    } else this.shift((before.clientX - event.clientX) / scale / w, (before.clientY - event.clientY) / scale / h);
    this.pointers.set(event.pointerId, event);
  }

  size() { return this.shown ? this.shown.header.image : { width_px: 1, height_px: 1, width_um: 1 }; }

  frame() {
    const { width_px: w, height_px: h } = this.size(), areas = areasOf(this.shown?.header ?? {}, this.stage.clientWidth, this.stage.clientHeight);
    const { left, top, width, height } = areas.xy, scale = Math.min(width / w, height / h) * this.zoom;
    return { areas, scale, left: left + width / 2 - this.x * w * scale, top: top + height / 2 - this.y * h * scale };
  }

  show(header, bitmap, detections, sides = null) {
    if (this.shown) for (const old of [this.shown.bitmap, this.shown.sides?.xz, this.shown.sides?.yz]) old?.close();
    this.shown = { header, bitmap, detections, sides };
    this.draw();
  }

  draw() {
    if (!this.shown) return;
    const { header, bitmap, detections, sides } = this.shown, { areas, scale, left, top } = this.frame(), { volume } = header;
    const base = fitted(this.image).pen, seen = { left, top, width: bitmap.width * scale, height: bitmap.height * scale };
    base.imageSmoothingEnabled = scale < 2;
    within(base, areas.xy, () => base.drawImage(bitmap, left, top, seen.width, seen.height));
    if (sides) { base.imageSmoothingEnabled = false; drawSides(base, areas, volume, sides, seen); }
    const { pen } = fitted(this.overlay), um = scale * header.image.width_px / header.image.width_um;
    const px = (x) => left + (x + header.image.pixel_um / 2) * um, py = (y) => top + (y + header.image.pixel_um / 2) * um;
    this.drawOn(pen, areas.xy, (x) => px(x), (_x, y) => py(y), detections, header);
    if (sides) {
      const { up, right } = depthPlaces(areas, volume);
      this.drawOn(pen, areas.xz, (x) => px(x), (_x, _y, z) => up(z), detections, header);
      this.drawOn(pen, areas.yz, (_x, _y, z) => right(z), (_x, y) => py(y), detections, header);
      drawAxes(pen, areas, volume);
    }
    this.drawScale(pen, um, areas.xy);
  }

  // Tails and detections in one projection; `px` and `py` give places on the page of positions x, y, z in um.
  drawOn(pen, area, px, py, detections, header) {
    within(pen, area, () => {
      if (this.tails) this.drawTails(pen, px, py, header);
      if (this.detections) this.drawDetections(pen, px, py, detections, header);
    });
  }

  drawTails(pen, px, py, header) {
    const focus = header.focus_um ?? 0;
    pen.lineWidth = 2; pen.lineCap = "round";
    for (const trail of this.trails.tracks.values()) {
      const recent = trail.filter((p) => p[4] > this.trails.now_s - TAIL_S);
      if (recent.length < 2 || recent[recent.length - 1][4] < this.trails.now_s) continue;
      pen.beginPath();
      recent.forEach((p, i) => pen[i ? "lineTo" : "moveTo"](px(p[0], p[1], p[2] - focus), py(p[0], p[1], p[2] - focus)));
      pen.strokeStyle = "rgb(0 0 0 / .45)"; pen.lineWidth = 3.5; pen.stroke();
      pen.strokeStyle = depthColour(recent[recent.length - 1][3], header.depth_um); pen.lineWidth = 2; pen.stroke();
    }
  }

  drawDetections(pen, px, py, rows, header) {
    const count = rows.length / 3, radius = Math.min(14, 5 + this.zoom);
    for (let i = 0; i < count; i++) {
      pen.beginPath();
      const [x, y, z] = [rows[i], rows[count + i], rows[2 * count + i]];
      pen.arc(px(x, y, z), py(x, y, z), radius, 0, 2 * Math.PI);
      pen.strokeStyle = "rgb(0 0 0 / .55)"; pen.lineWidth = 3.5; pen.stroke();
      pen.strokeStyle = depthColour(z, header.depth_um); pen.lineWidth = 2; pen.stroke();
    }
  }

  drawScale(pen, um, { left, top, width, height }) {
    const target = 0.2 * width / um, power = 10 ** Math.floor(Math.log10(target));
    const length = [5, 2, 1].map((n) => n * power).find((l) => l <= target), x = left + 18, y = top + height - 16;
    pen.fillStyle = "rgb(0 0 0 / .6)"; pen.fillRect(x - 8, y - 20, length * um + 16, 30);
    pen.fillStyle = "#fff"; pen.fillRect(x, y, length * um, 3);
    pen.font = "12px system-ui, sans-serif"; pen.textAlign = "left"; pen.fillText(`${length} µm`, x, y - 6);
  }

  async png() {
    const whole = document.createElement("canvas"), pen = whole.getContext("2d");
    whole.width = this.image.width; whole.height = this.image.height;
    pen.fillStyle = "#000"; pen.fillRect(0, 0, whole.width, whole.height);
    pen.filter = this.image.style.filter || "none"; pen.drawImage(this.image, 0, 0);
    pen.filter = "none"; pen.drawImage(this.overlay, 0, 0);
    return new Promise((resolve) => whole.toBlob(resolve, "image/png"));
  }
}
