import { depthColour, drawBar } from "./colours.js";
import { drawHistogram } from "./histogram.js";
import { drawPlane } from "./plane.js";
import { drawProfile } from "./profile.js";
import { Space } from "./space.js";

// The drawings of a finished run, from the data in the report itself; drawn again when the size or the colour scheme changes.
const data = JSON.parse(document.getElementById("drawings").textContent), { space: field } = data;
const raw = Uint8Array.from(atob(field.points), (c) => c.charCodeAt(0)), points = new Float32Array(raw.buffer), n = points.length / 3;
const paths = [];
let at = 0;
for (const count of field.counts) {
  paths.push(Array.from({ length: count }, (_, i) => [points[at + i], points[n + at + i], points[2 * n + at + i]]));
  at += count;
}
const tracks = new Map(paths.map((path, i) => [i, path.map(([x, y, height]) => [x, y, height, height, 0])]));
const draws = [];
const el = (id) => document.getElementById(id);
const keep = (canvas, draw) => { if (!canvas) return; draws.push(draw); new ResizeObserver(draw).observe(canvas); };

keep(el("profile"), () => drawProfile(el("profile"), data.profile));
keep(el("plane"), () => drawPlane(el("plane"), paths, field));
if (el("space")) {
  const view = new Space(el("space"), el("space-caption"), { tracks, now_s: 0, what: `${paths.length} of ${field.tracks}` });
  view.header = { image: field, depth_um: field.depth_um };
  keep(el("space"), () => view.draw());
}
for (const canvas of document.querySelectorAll("canvas[data-histogram]")) {
  const [kind, index] = canvas.dataset.histogram.split("."), one = data.histograms[kind][index];
  const [low, high] = [one.edges[0], one.edges[one.edges.length - 1]];
  keep(canvas, () => drawHistogram(canvas, { ...one, wide: 70, colour: kind === "depth" ? (z) => depthColour(z, [low, high]) : null }));
}
for (const bar of document.querySelectorAll("canvas.bar")) drawBar(bar);
const all = () => draws.forEach((draw) => draw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
window.addEventListener("beforeprint", all);
