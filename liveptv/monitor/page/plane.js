import { depthColour, fitted, theme, tickText, ticks } from "./colours.js";

const LEFT = 52, BOTTOM = 34, TOP = 8, RIGHT = 10;

// Trajectories in the image plane, y downwards, as large as fits; a path is a list of [x, y, height].
export function drawPlane(canvas, paths, { width_um: w, height_um: h, depth_um: depth }) {
  const { pen, width, height } = fitted(canvas);
  const scale = Math.min((width - LEFT - RIGHT) / w, (height - BOTTOM - TOP) / h), left = LEFT + (width - LEFT - RIGHT - w * scale) / 2;
  const px = (x) => left + x * scale, py = (y) => TOP + y * scale;
  pen.font = "12px system-ui, sans-serif"; pen.fillStyle = theme("quiet"); pen.strokeStyle = theme("line"); pen.lineWidth = 1;
  pen.strokeRect(px(0), py(0), w * scale, h * scale);
  pen.textAlign = "center";
  for (const x of ticks(0, w, w * scale / 80)) pen.fillText(tickText(x), px(x), py(h) + 15);
  pen.fillText("x, µm", px(w / 2), py(h) + 31);
  pen.textAlign = "right";
  for (const y of ticks(0, h, h * scale / 50)) pen.fillText(tickText(y), px(0) - 6, py(y) + 4);
  pen.save(); pen.translate(Math.max(12, px(0) - 40), py(h / 2)); pen.rotate(-Math.PI / 2); pen.textAlign = "center"; pen.fillText("y, µm", 0, 0); pen.restore();
  pen.save(); pen.beginPath(); pen.rect(px(0), py(0), w * scale, h * scale); pen.clip();
  pen.lineWidth = 1.2; pen.lineCap = "round";
  for (const path of paths) {
    if (path.length < 2) continue;
    pen.beginPath(); path.forEach(([x, y]) => pen.lineTo(px(x), py(y)));
    pen.strokeStyle = depthColour(path[path.length >> 1][2], depth); pen.stroke();
  }
  pen.restore();
}
