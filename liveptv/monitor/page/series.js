import { theme } from "./colours.js";

// Columns of a sample: time, frames/s, particles, tracks, latency, lost, queue, velocity.
const PLOTS = [
  ["p-rate", [[1, "frames/s"]], [[7, "median velocity, µm/s", "right"]]],
  ["p-count", [[2, "particles"], [3, "tracks"]], []],
  ["p-latency", [[4, "latency, ms"]], []],
  ["p-loss", [[5, "frames lost"]], [[6, "queue, %", "right"]]],
];

export class Series {
  constructor() { this.plots = []; this.data = []; matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.build()); }

  build() {
    for (const { plot } of this.plots) plot.destroy();
    this.plots = PLOTS.map(([id, left, right]) => {
      const home = document.getElementById(id), columns = [...left, ...right], colours = [theme("one"), theme("two")];
      const axis = { stroke: theme("quiet"), grid: { stroke: theme("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif", size: 44 };
      const series = columns.map(([, label, side], i) => ({ label, stroke: colours[i], width: 1.8, scale: side || "left", dash: i ? [5, 3] : undefined, spanGaps: false, points: { show: false }, value: (_, v) => (v == null ? "–" : +v.toPrecision(4)) }));
      const from0 = (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.1 : low < 0 ? 0 : 1];
      const plot = new uPlot({
        width: home.clientWidth, height: 150, cursor: { y: false, sync: { key: "time" } }, series: [{ label: "s", value: (_, v) => (v == null ? "–" : v.toFixed(1)) }, ...series],
        scales: { x: { time: false }, left: { range: from0 }, right: { range: from0 } },
        axes: [{ ...axis, size: 26 }, { ...axis, scale: "left" }, ...(right.length ? [{ ...axis, scale: "right", side: 1, grid: { show: false } }] : [])],
      }, [[], ...columns.map(() => [])], home);
      new ResizeObserver(() => plot.setSize({ width: home.clientWidth, height: 150 })).observe(home);
      return { plot, columns: columns.map(([index]) => index) };
    });
    this.show(this.data);
  }

  show(samples) {
    this.data = samples;
    if (!this.plots.length && samples.length) { this.build(); return; }
    for (const { plot, columns } of this.plots) plot.setData([0, ...columns].map((c) => samples.map((row) => row[c])));
  }
}
