// Viridis (van der Walt & Smith, CC0): ordered in lightness, and told apart with any colour vision.
const STOPS = [[68,1,84],[72,35,116],[64,67,135],[52,94,141],[41,120,142],[32,144,140],[34,167,132],[68,190,112],[121,209,81],[189,222,38],[253,231,36]];
const TABLE = Array.from({ length: 64 }, (_, i) => {
  const at = (i / 63) * (STOPS.length - 1), low = Math.min(Math.floor(at), STOPS.length - 2), part = at - low;
  return `rgb(${STOPS[low].map((c, k) => Math.round(c + part * (STOPS[low + 1][k] - c))).join(",")})`;
});
export const PLAIN = "#56b4e9";

export function depthColour(z, range) {
  if (!range || !Number.isFinite(z)) return PLAIN;
  const part = (z - range[0]) / (range[1] - range[0]);
  return TABLE[Math.max(0, Math.min(63, Math.round(63 * part)))];
}

export function drawBar(canvas) {
  const pen = canvas.getContext("2d");
  TABLE.forEach((colour, i) => { pen.fillStyle = colour; pen.fillRect(i * canvas.width / 64, 0, canvas.width / 64 + 1, canvas.height); });
}

export function theme(name) { return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim(); }

// A canvas as large as it is shown, its context scaled so that one unit is one CSS pixel.
export function fitted(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

export function ticks(low, high, most) {
  const raw = (high - low) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(raw || 1));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= raw) || power, found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  return found;
}

export const tickText = (value) => String(+value.toPrecision(6)).replace("-", "−");
