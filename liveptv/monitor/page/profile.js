import { fitted, theme, tickText, ticks } from "./colours.js";

const LEFT = 52, BOTTOM = 36, TOP = 8, RIGHT = 12;

// Height over velocity: means of bins with their standard errors, the laminar flow at the pump's set-point as a dashed
// line, and the fit of the flow as a line in a band of two standard errors.
export function drawProfile(canvas, facts) {
  const { pen, width, height } = fitted(canvas);
  const theory = facts.theory, dots = facts.dots || { height_um: [], velocity_um_s: [] }, known = (v) => v !== null;
  const spread = [...dots.velocity_um_s].filter(known).sort((a, b) => a - b), cut = Math.floor(spread.length / 200);
  const fit = facts.fit, values = [0, ...facts.velocity_um_s.filter(known), ...(theory ? theory.velocity_um_s : []), ...(fit ? fit.velocity_um_s : []), ...spread.slice(cut, spread.length - cut)];
  const heights = [...facts.height_um.filter(known), ...(theory ? theory.height_um : []), ...(fit ? fit.height_um : []), ...dots.height_um.filter(known)];
  pen.font = "12px system-ui, sans-serif";
  if (!heights.length) {
    pen.fillStyle = theme("quiet"); pen.textAlign = "center";
    pen.fillText(facts.min_length ? `waiting for trajectories of at least ${facts.min_length} detections …` : "no trajectory is long enough", width / 2, height / 2);
    return;
  }
  const pad = (low, high) => [low - 0.05 * (high - low || 1), high + 0.07 * (high - low || 1)];
  const [v0, v1] = pad(Math.min(...values), Math.max(...values)), [h0, h1] = pad(Math.min(...heights), Math.max(...heights));
  const px = (v) => LEFT + (v - v0) / (v1 - v0) * (width - LEFT - RIGHT), py = (h) => height - BOTTOM - (h - h0) / (h1 - h0) * (height - BOTTOM - TOP);
  pen.strokeStyle = theme("grid"); pen.fillStyle = theme("quiet"); pen.lineWidth = 1;
  const line = (x0, y0, x1, y1) => { pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); };
  pen.textAlign = "center";
  for (const v of ticks(v0, v1, width / 80)) { line(px(v), TOP, px(v), height - BOTTOM); pen.fillText(tickText(v), px(v), height - BOTTOM + 14); }
  pen.textAlign = "right";
  for (const h of ticks(h0, h1, height / 50)) { line(LEFT, py(h), width - RIGHT, py(h)); pen.fillText(tickText(h), LEFT - 6, py(h) + 4); }
  pen.textAlign = "center"; pen.fillText("velocity along x, µm/s", (LEFT + width) / 2, height - 5);
  pen.save(); pen.translate(12, (height - BOTTOM) / 2); pen.rotate(-Math.PI / 2); pen.fillText(facts.over === "y" ? "y, µm" : "height, µm", 0, 0); pen.restore();
  pen.fillStyle = theme("quiet"); pen.globalAlpha = 0.35;
  dots.height_um.forEach((h, i) => { const v = dots.velocity_um_s[i]; if (v >= v0 && v <= v1) { pen.beginPath(); pen.arc(px(v), py(h), 1.3, 0, 2 * Math.PI); pen.fill(); } });
  pen.globalAlpha = 1;
  if (theory) {
    pen.beginPath(); theory.height_um.forEach((h, i) => pen.lineTo(px(theory.velocity_um_s[i]), py(h)));
    pen.strokeStyle = theme("two"); pen.lineWidth = 2; pen.setLineDash([6, 4]); pen.stroke(); pen.setLineDash([]);
  }
  if (fit) {
    const at = (i, side) => pen.lineTo(px(fit.velocity_um_s[i] + side * 2 * fit.error_um_s[i]), py(fit.height_um[i])), order = fit.height_um.map((_, i) => i);
    pen.beginPath(); order.forEach((i) => at(i, -1)); order.reverse().forEach((i) => at(i, 1)); pen.closePath();
    pen.fillStyle = theme("one"); pen.globalAlpha = 0.25; pen.fill(); pen.globalAlpha = 1;
    pen.beginPath(); order.forEach((i) => at(i, 0)); pen.strokeStyle = theme("ink"); pen.lineWidth = 1.5; pen.stroke();
  }
  pen.strokeStyle = pen.fillStyle = theme("one"); pen.lineWidth = 2;
  facts.height_um.forEach((h, i) => {
    const v = facts.velocity_um_s[i], e = facts.error_um_s[i] || 0;
    if (v === null || h === null) return;
    line(px(v - e), py(h), px(v + e), py(h));
    pen.beginPath(); pen.arc(px(v), py(h), 3.5, 0, 2 * Math.PI); pen.fill();
  });
}
