import { fitted, theme, tickText } from "./colours.js";

const LEFT = 44, BOTTOM = 34, TOP = 6, RIGHT = 98; // px

// Numbers in cells of a plane, null where nothing is known, with a bar of the colours. `framed` cells get a border;
// `across` and `up` are { name, edges, marked }: axis, edges of the cells, and the values written at it.
export function drawCells(canvas, { rows, framed, across, up, upward = true, colour, bar }) {
  const { pen, width, height } = fitted(canvas), [xs, ys] = [across.edges, up.edges];
  const [x0, x1] = [xs[0], xs[xs.length - 1]], [y0, y1] = [ys[0], ys[ys.length - 1]], tall = height - BOTTOM - TOP;
  const px = (x) => LEFT + (x - x0) / (x1 - x0) * (width - LEFT - RIGHT), part = (y) => (y - y0) / (y1 - y0) * tall;
  const py = (y) => upward ? height - BOTTOM - part(y) : TOP + part(y);
  const box = (j, i) => { const [a, b] = [py(ys[j]), py(ys[j + 1])]; return [px(xs[i]), Math.min(a, b), px(xs[i + 1]) - px(xs[i]), Math.abs(a - b)]; };
  pen.font = "12px system-ui, sans-serif"; pen.strokeStyle = theme("line"); pen.lineWidth = 1;
  rows.forEach((row, j) => row.forEach((value, i) => {
    if (value === null) { pen.strokeRect(...box(j, i)); return; }
    pen.fillStyle = colour(value); pen.fillRect(...box(j, i));
  }));
  pen.strokeStyle = theme("ink"); pen.lineWidth = 2;
  rows.forEach((row, j) => row.forEach((_, i) => { if (framed[j][i]) { const [x, y, w, h] = box(j, i); pen.strokeRect(x + 1, y + 1, w - 2, h - 2); } }));
  pen.fillStyle = theme("quiet"); pen.textAlign = "center";
  for (const x of across.marked) pen.fillText(tickText(Math.round(x)), px(x), height - BOTTOM + 14);
  pen.fillText(across.name, (LEFT + width - RIGHT) / 2, height - 4);
  pen.textAlign = "right";
  for (const y of up.marked) pen.fillText(tickText(Math.round(y)), LEFT - 5, py(y) + (py(y) > height / 2 ? 0 : 9));
  pen.save(); pen.translate(11, (height - BOTTOM) / 2); pen.rotate(-Math.PI / 2); pen.textAlign = "center"; pen.fillText(up.name, 0, 0); pen.restore();
  const x = width - RIGHT + 14, top = TOP + 4, long = tall - 8;
  for (let k = 0; k < 40; k++) { pen.fillStyle = bar.colour(1 - k / 39); pen.fillRect(x, top + k * long / 40, 10, long / 40 + 1); }
  pen.fillStyle = theme("quiet"); pen.textAlign = "left";
  bar.marked.forEach(({ at, said }) => pen.fillText(said, x + 14, top + (1 - at) * (long - 9) + 9));
}
