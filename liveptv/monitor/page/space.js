import { depthColour, fitted, theme } from "./colours.js";

// Height of the box over its longer side at least: a shallow channel is stretched to it, and the caption says by how much.
const LEAST_HEIGHT = 0.35;

// The trajectories in 3D, parallel projection; dragging rotates, the wheel zooms. Shallow data is stretched in height.
export class Space {
  constructor(canvas, caption, trails) {
    Object.assign(this, { canvas, caption, trails, turn: -0.6, tilt: 0.45, zoom: 1, header: null, drag: null });
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); this.drag = [event.clientX, event.clientY]; });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.drag) return;
      this.turn += (event.clientX - this.drag[0]) / 150;
      this.tilt = Math.max(-1.57, Math.min(1.57, this.tilt + (event.clientY - this.drag[1]) / 150));
      this.drag = [event.clientX, event.clientY]; this.draw();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { this.drag = null; });
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom = Math.max(0.4, Math.min(8, this.zoom * Math.exp(-event.deltaY / 500))); this.draw(); }, { passive: false });
    canvas.addEventListener("dblclick", () => { this.turn = -0.6; this.tilt = 0.45; this.zoom = 1; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  bounds() {
    let low = Infinity, high = -Infinity;
    for (const trail of this.trails.tracks.values()) for (const p of trail) if (Number.isFinite(p[2])) { low = Math.min(low, p[2]); high = Math.max(high, p[2]); }
    return low < high ? [low, high] : [0, 1];
  }

  draw() {
    if (!this.header) return;
    const { pen, width, height } = fitted(this.canvas), { width_um: w, height_um: h } = this.header.image, [low, high] = this.bounds();
    const deep = this.header.depth_um !== null, side = Math.max(w, h), tall = deep ? high - low : 0;
    const stretch = deep ? Math.max(1, LEAST_HEIGHT * side / tall) : 1;
    const [ct, st, cp, sp] = [Math.cos(this.turn), Math.sin(this.turn), Math.cos(this.tilt), Math.sin(this.tilt)];
    const wide = w * Math.abs(ct) + h * Math.abs(st), high_up = (w * Math.abs(st) + h * Math.abs(ct)) * Math.abs(sp) + tall * stretch * Math.abs(cp);
    const scale = Math.min((width - 80) / wide, (height - 48) / high_up) * this.zoom;
    const place = (x, y, z) => {
      const a = x - w / 2, b = y - h / 2, c = ((Number.isFinite(z) ? z : low) - (low + high) / 2) * (deep ? stretch : 0);
      return [width / 2 + scale * (a * ct - b * st), height / 2 + scale * ((a * st + b * ct) * sp - c * cp)];
    };
    this.box(pen, place, w, h, low, high, deep);
    pen.lineWidth = 1.6; pen.lineCap = "round";
    for (const trail of this.trails.tracks.values()) {
      if (trail.length < 2) continue;
      pen.beginPath();
      trail.forEach((p, i) => { const [x, y] = place(p[0], p[1], p[2]); if (i) pen.lineTo(x, y); else pen.moveTo(x, y); });
      const last = trail[trail.length - 1];
      pen.globalAlpha = last[4] < this.trails.now_s ? 0.45 : 1;
      pen.strokeStyle = depthColour(last[3], this.header.depth_um); pen.stroke();
    }
    pen.globalAlpha = 1;
    const more = stretch > 1.05 ? `, height stretched ${stretch.toFixed(1)} times` : "";
    this.caption.textContent = `${this.trails.what ?? `last ${this.trails.keep_s} s`}${deep ? more : ", no depth"}; drag to rotate`;
  }

  box(pen, place, w, h, low, high, deep) {
    const corner = (i) => place(i & 1 ? w : 0, i & 2 ? h : 0, i & 4 ? high : low);
    pen.strokeStyle = theme("line"); pen.lineWidth = 1;
    for (let i = 0; i < 8; i++) for (const bit of [1, 2, 4]) if (!(i & bit) && (deep || (bit !== 4 && !(i & 4)))) {
      pen.beginPath(); pen.moveTo(...corner(i)); pen.lineTo(...corner(i | bit)); pen.stroke();
    }
    pen.fillStyle = theme("quiet"); pen.font = "11px system-ui, sans-serif"; pen.textAlign = "center";
    const label = (text, [x, y]) => pen.fillText(text, x, y + 14);
    label(`x ${w.toFixed(0)} µm`, place(w / 2, h, low)); label(`y ${h.toFixed(0)} µm`, place(0, h / 2, low));
    if (deep) { label(`${low.toFixed(0)} µm`, place(w, h, low)); const [x, y] = place(w, h, high); pen.fillText(`${high.toFixed(0)} µm`, x, y - 5); }
  }
}
