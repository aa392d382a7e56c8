import { drawCells } from "./cells.js";
import { tickText } from "./colours.js";

const LEAST = 0.01; // least range of the colours, a part of the maximum velocity

// Blue where the trajectories are slower than the fit, red where they are faster; grey between.
function colour(part) {
  const p = Math.max(-1, Math.min(1, part)), end = p < 0 ? [33, 102, 172] : [178, 24, 43], grey = 205;
  return `rgb(${end.map((c) => Math.round(grey + (c - grey) * Math.abs(p))).join(",")})`;
}

// Trajectories less fit in cells over the section; cells that chance would not give are framed.
export function drawResiduals(canvas, { residuals: { y_um: ys, z_um: zs, residual_um_s: rows, significant }, maximum_um_s: most }) {
  const known = rows.flat().filter((v) => v !== null), reach = Math.max(LEAST * most, ...known.map(Math.abs));
  const signed = (v) => `${v > 0 ? "+" : ""}${tickText(+v.toPrecision(2))}`;
  drawCells(canvas, {
    rows, framed: significant, colour: (v) => colour(v / reach),
    across: { name: "y from the middle, µm", edges: ys, marked: [ys[0], 0, ys[ys.length - 1]] },
    up: { name: "above floor, µm", edges: zs, marked: [zs[0], zs[zs.length - 1]] },
    bar: { colour: (part) => colour(2 * part - 1), marked: [{ at: 1, said: `${signed(reach)} µm/s` }, { at: 0.5, said: "0" }, { at: 0, said: signed(-reach) }] },
  });
}
