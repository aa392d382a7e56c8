import { fitted, theme, tickText } from "./colours.js";

const LEFT = 44, BOTTOM = 34, TOP = 6, RIGHT = 98, LEAST = 0.01; // px; least range of the colours, a part of the maximum velocity

// Blue where the trajectories are slower than the fit, red where they are faster; grey between.
function colour(part) {
  const p = Math.max(-1, Math.min(1, part)), end = p < 0 ? [33, 102, 172] : [178, 24, 43], grey = 205;
  return `rgb(${end.map((c) => Math.round(grey + (c - grey) * Math.abs(p))).join(",")})`;
}

// Trajectories less fit in cells over the section; cells that chance would not give are framed.
export function drawResiduals(canvas, { residuals: { y_um: ys, z_um: zs, residual_um_s: rows, significant }, maximum_um_s: most }) {
  const { pen, width, height } = fitted(canvas), known = rows.flat().filter((v) => v !== null);
  const [y0, y1] = [ys[0], ys[ys.length - 1]], [z0, z1] = [zs[0], zs[zs.length - 1]];
  const px = (y) => LEFT + (y - y0) / (y1 - y0) * (width - LEFT - RIGHT), py = (z) => height - BOTTOM - (z - z0) / (z1 - z0) * (height - BOTTOM - TOP);
  const reach = Math.max(LEAST * most, ...known.map(Math.abs));
  pen.font = "12px system-ui, sans-serif"; pen.strokeStyle = theme("line"); pen.lineWidth = 1;
  rows.forEach((row, j) => row.forEach((v, i) => {
    const box = [px(ys[i]), py(zs[j + 1]), px(ys[i + 1]) - px(ys[i]), py(zs[j]) - py(zs[j + 1])];
    if (v === null) { pen.strokeRect(...box); return; }
    pen.fillStyle = colour(v / reach); pen.fillRect(...box);
  }));
  pen.strokeStyle = theme("ink"); pen.lineWidth = 2;
  rows.forEach((row, j) => row.forEach((_, i) => { if (significant[j][i]) pen.strokeRect(px(ys[i]) + 1, py(zs[j + 1]) + 1, px(ys[i + 1]) - px(ys[i]) - 2, py(zs[j]) - py(zs[j + 1]) - 2); }));
  pen.fillStyle = theme("quiet"); pen.textAlign = "center";
  for (const y of [y0, 0, y1]) pen.fillText(tickText(Math.round(y)), px(y), height - BOTTOM + 14);
  pen.fillText("y from the middle, µm", (LEFT + width - RIGHT) / 2, height - 4);
  pen.textAlign = "right";
  for (const z of [z0, z1]) pen.fillText(tickText(Math.round(z)), LEFT - 5, py(z) + (z === z0 ? 0 : 9));
  pen.save(); pen.translate(11, (height - BOTTOM) / 2); pen.rotate(-Math.PI / 2); pen.textAlign = "center"; pen.fillText("above floor, µm", 0, 0); pen.restore();
  const x = width - RIGHT + 14, top = TOP + 4, tall = height - BOTTOM - TOP - 8;
  for (let k = 0; k < 40; k++) { pen.fillStyle = colour(1 - 2 * k / 39); pen.fillRect(x, top + k * tall / 40, 10, tall / 40 + 1); }
  pen.fillStyle = theme("quiet"); pen.textAlign = "left";
  const signed = (v) => `${v > 0 ? "+" : ""}${tickText(+v.toPrecision(2))}`;
  pen.fillText(`${signed(reach)} µm/s`, x + 14, top + 9); pen.fillText("0", x + 14, top + tall / 2 + 4); pen.fillText(signed(-reach), x + 14, top + tall);
}
