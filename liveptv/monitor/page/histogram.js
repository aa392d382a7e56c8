import { fitted, theme, tickText, ticks } from "./colours.js";

const BOTTOM = 34, TOP = 8, RIGHT = 12;

// Bars over bins, with names and units on the axes; `colour` takes the middle of a bin.
export function drawHistogram(canvas, { edges, values, across, up, colour, nothing, wide = 90 }) {
  const { pen, width, height } = fitted(canvas);
  pen.font = "12px system-ui, sans-serif";
  if (!values || !values.some((value) => value > 0)) {
    pen.fillStyle = theme("quiet"); pen.textAlign = "center"; pen.fillText(nothing || "nothing yet", width / 2, height / 2);
    return;
  }
  const low = edges[0], high = edges[edges.length - 1], top = 1.08 * Math.max(...values);
  const marks = ticks(0, top, height / 45), left = 28 + Math.max(...marks.map((n) => pen.measureText(tickText(n)).width));
  const px = (v) => left + (v - low) / (high - low) * (width - left - RIGHT), py = (n) => height - BOTTOM - n / top * (height - BOTTOM - TOP);
  pen.strokeStyle = theme("grid"); pen.fillStyle = theme("quiet"); pen.lineWidth = 1;
  pen.textAlign = "right";
  for (const n of marks) {
    pen.beginPath(); pen.moveTo(left, py(n)); pen.lineTo(width - RIGHT, py(n)); pen.stroke(); pen.fillText(tickText(n), left - 6, py(n) + 4);
  }
  pen.textAlign = "center";
  for (const v of ticks(low, high, width / wide)) pen.fillText(tickText(v), px(v), height - BOTTOM + 14);
  pen.fillText(across, (left + width) / 2, height - 4);
  pen.save(); pen.translate(11, (height - BOTTOM) / 2); pen.rotate(-Math.PI / 2); pen.fillText(up, 0, 0); pen.restore();
  values.forEach((n, i) => {
    pen.fillStyle = colour ? colour((edges[i] + edges[i + 1]) / 2) : theme("one");
    pen.fillRect(px(edges[i]) + 0.5, py(n), Math.max(px(edges[i + 1]) - px(edges[i]) - 1, 1), py(0) - py(n));
  });
  pen.strokeStyle = theme("quiet"); pen.beginPath(); pen.moveTo(left, py(0)); pen.lineTo(width - RIGHT, py(0)); pen.stroke();
}
