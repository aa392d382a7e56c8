import { drawCells } from "./cells.js";
import { depthColour, tickText } from "./colours.js";

const UNITS = { um: "µm", C: "°C" };

const withError = (value, error) => {
  if (!(error > 0)) return value.toPrecision(3);
  const digits = Math.min(Math.max(0, 1 - Math.floor(Math.log10(error))), 20);
  return `${value.toFixed(digits)} ± ${error.toFixed(digits)}`;
};

// D in words: in the plane, along each axis, and what follows from it.
export function diffusionWords({ um2_s, error_um2_s, axes, third }) {
  const bounded = axes.filter((one) => (one.at_most_um2_s ?? null) !== null);
  const each = axes.filter((one) => one.um2_s !== null).map((one) => `${one.axis} ${withError(one.um2_s, one.error_um2_s)}`)
    .concat(bounded.map((one) => `${one.axis} at most ${one.at_most_um2_s.toPrecision(2)}`));
  const plane = axes.filter((one) => one.axis !== "z"), sheared = plane.filter((one) => one.sheared_um2_s > 0);
  const away = sheared.map((one) => `${one.axis} is left out: the shear of the flow adds about ${one.sheared_um2_s.toPrecision(1)} µm²/s to it`);
  const held = (axis) => axis === "z" ? "" : ", as does what holds particles";
  away.push(...bounded.map((one) => `errors of ${one.axis} that last over several frames look like diffusion${held(one.axis)}`));
  away.push(...plane.filter((one) => one.frames > 1 && one.um2_s !== null).map((one) => `${one.axis} from means over ${one.frames} frames, as errors last over them`));
  const more = third ? `; ${third.name} ${withError(third.value, third.error)} ${UNITS[third.unit] ?? third.unit}` : "";
  const said = um2_s === null ? "not known" : `${withError(um2_s, error_um2_s)} µm²/s`;
  return `Diffusion in the plane: ${said} (${[each.join(", "), ...away].join("; ")})${more}.`;
}

// D over the image, in cells that are known well enough; those that differ from the mean by more than chance framed.
export function drawDiffusion(canvas, { x_um: xs, y_um: ys, um2_s: rows, differs }) {
  const known = rows.flat().filter((v) => v !== null);
  const range = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1], ends = (edges) => [edges[0], edges[edges.length - 1]];
  const said = (v) => tickText(+v.toPrecision(2));
  drawCells(canvas, {
    rows, framed: differs, upward: false, colour: (v) => depthColour(v, range),
    across: { name: "x, µm", edges: xs, marked: ends(xs) }, up: { name: "y, µm", edges: ys, marked: ends(ys) },
    bar: { colour: (part) => depthColour(part, [0, 1]), marked: [{ at: 1, said: `${said(range[1])} µm²/s` }, { at: 0, said: said(range[0]) }] },
  });
}

export function mapWords({ error_um2_s: rows }) {
  const errors = rows.flat().filter((v) => v !== null).sort((a, b) => a - b), middle = errors[Math.floor(errors.length / 2)];
  const known = errors.length ? `standard errors about ${middle.toPrecision(1)} µm²/s; ` : "";
  return `D over the image; ${known}framed: chance would not give it; empty: too little is known`;
}
