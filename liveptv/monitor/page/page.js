import { Camera } from "./camera.js";
import { depthColour, drawBar } from "./colours.js";
import { diffusionWords, drawDiffusion, mapWords } from "./diffusion.js";
import { drawHistogram } from "./histogram.js";
import { drawProfile } from "./profile.js";
import { drawResiduals } from "./residuals.js";
import { Series } from "./series.js";
import { Space } from "./space.js";
import { Steering } from "./steering.js";
import { Trails } from "./trails.js";

const el = (id) => document.getElementById(id);
const text = (id, value) => { if (el(id).textContent !== value) el(id).textContent = value; };
const SPACE_MS = 120; // between drawings of the trajectories in 3D, the slowest part of a page
const ALIVE_MS = 10000; // between signs of life; the server disconnects a page that is silent for 30 s
const AGAIN_MS = 1500; // before the page connects again
const VOLUME_WORDS = { "w-rate": "volumes/s", "w-lost": "volumes lost", "w-frames": "volumes" };
const LEFT_OUT_WORDS = { "no size": "volumes before the size of a spot was known", noise: "places that noise alone shows", doubtful: "of too little confidence", "no fit": "for which no fit was found" };
const decode = new TextDecoder();
const trails = new Trails(), camera = new Camera(el("stage"), el("image"), el("overlay"), trails), space = new Space(el("space"), el("space-caption"), trails), series = new Series();
const steering = new Steering((said) => say(said), snapshot);
const measured = { images: 0, ages: [], velocity_um_s: null };
let socket = null, shown = 0, last = null, summary = null, spaceDue = 0, over = false;
window.liveptv = { measured };

function say(said) {
  if (!socket || socket.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(said));
  return true;
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/live${location.search}`);
  socket.binaryType = "arraybuffer";
  shown = 0;
  socket.onopen = () => { el("events").replaceChildren(); trouble(""); };
  socket.onmessage = (event) => take(event.data);
  socket.onclose = () => {
    for (const id of ["pause", "stop", "mark", "keep"]) el(id).disabled = true;
    if (over) return;
    state("lost"); trouble("Connection to the run lost; trying to reconnect …");
    setTimeout(connect, AGAIN_MS);
  };
}

function parts(data) {
  const length = new DataView(data).getUint32(0, true), header = JSON.parse(decode.decode(new Uint8Array(data, 4, length)));
  let place = 4 + length;
  return [header, header.blobs.map((size) => { const blob = data.slice(place, place + size); place += size; return blob; })];
}

async function take(data) {
  const [header, blobs] = parts(data);
  if (header.answer) { steering.answered(header.answer); return; }
  if (header.image) {
    const [bitmap, xz, yz] = await Promise.all([blobs[0], ...blobs.slice(3)].map((blob) => createImageBitmap(new Blob([blob], { type: "image/jpeg" }))));
    requestAnimationFrame(() => { showImage(header, bitmap, blobs, xz && { xz, yz }); acknowledge(); });
    return;
  }
  for (const event of header.events || []) showEvent(event);
  if (header.forms) steering.controllers.offer(header.forms, header.units);
  if (header.summary) showSummary(header.summary);
  acknowledge();
}

function acknowledge() { shown += 1; say({ shown }); }

function showImage(header, bitmap, [, found, tracked], sides) {
  const detections = new Float32Array(found), tracks = new Float32Array(tracked);
  trails.add(tracks, tracks.length / 4, header);
  camera.show(header, bitmap, detections, sides);
  last = { header, detections, tracks };
  el("nothing").hidden = true;
  const high = header.volume ? header.volume.z_um[1] - header.volume.z_um[0] : 0;
  el("stage").style.setProperty("--aspect", (header.image.width_um + high) / (header.image.height_um + high));
  el("snapshot").disabled = false;
  space.header = header;
  const now = performance.now();
  if (now > spaceDue) { spaceDue = now + SPACE_MS; space.draw(); }
  if (header.volume) steering.scans(header.volume);
  for (const [id, words] of Object.entries(header.volume ? VOLUME_WORDS : {})) text(id, words);
  const missing = header.volume?.missing_um.length, shownAs = header.volume ? `volume ${header.frame}, maximum projections of ${header.volume.slices} slices${missing ? ` (${missing} missing)` : ""}` : `frame ${header.frame}`;
  text("camera-caption", `${shownAs}, ${header.particles} particles, grey values ${header.image.black.toFixed(0)} to ${header.image.white.toFixed(0)}`);
  const range = header.depth_um;
  el("z-bar").hidden = !range;
  const digits = range && range[1] - range[0] < 20 ? 1 : 0;
  text("z-low", range ? fixed(range[0], digits) : ""); text("z-high", range ? fixed(range[1], digits) : ""); text("z-unit", range ? "µm depth" : "no depth (2D)");
  measured.images += 1;
  if (header.age_ms !== null) {
    measured.ages.push(header.age_ms + Math.max(0, Date.now() - header.sent_ms));
    if (measured.ages.length > 600) measured.ages.shift();
    const recent = measured.ages.slice(-20).sort((a, b) => a - b);
    text("age", `image shown ${recent[recent.length >> 1].toFixed(0)} ms after its exposure`);
  }
}

const fixed = (value, digits) => (value == null ? "–" : value.toFixed(digits).replace("-", "−"));
function state(name) { document.body.dataset.state = name; text("state", name === "lost" ? "no connection" : name); }
function trouble(said) { el("trouble").hidden = !said; text("trouble", said); }

function showSummary(now) {
  summary = now; over = ["ended", "failed"].includes(now.state);
  state(now.state);
  trouble(now.state === "failed" ? `The run has failed: ${now.why}` : "");
  text("run", now.run ? `run ${now.run}` : "");
  const lost = Object.values(now.losses).reduce((a, b) => a + b, 0);
  const facts = { rate: fixed(now.frames_per_s, 1), particles: fixed(now.particles, 0), tracks: fixed(now.tracks, 0), latency: fixed(now.latency_ms, 0), lost: String(lost), frames: String(now.frames), focus: fixed(now.focus_um, 1), flow: now.flow_ul_s == null ? "–" : String(+now.flow_ul_s.toPrecision(4)) };
  for (const [name, value] of Object.entries(facts)) text(`f-${name}`, value);
  el("f-lost").parentElement.classList.toggle("alarm", lost > 0);
  document.title = `${now.state} – liveptv`;
  text("file", over ? `${now.state}: ${now.why}; ${now.output}` : now.output);
  steering.show(now);
  series.show(now.series);
  measured.velocity_um_s = now.series.length ? now.series[now.series.length - 1][7] : null;
  drawProfile(el("profile"), { ...now.profile, fit: now.profile.over === "height" && !now.flow?.was_before ? now.flow?.profile : null });
  text("profile-caption", now.profile.tracks ? `${now.profile.tracks} trajectories; bars: standard error${now.profile.theory ? "; dashed: laminar flow" : ""}${now.flow && !now.flow.was_before ? "; line: fit, ± 2 standard errors" : ""}` : "");
  showFlow(now.flow);
  showDiffusion(now.diffusion);
  showProperties(now.properties ?? []);
  showDetection(now.detection);
  showChecks(now.checks);
  el("proposed").hidden = !now.proposed; text("proposed", now.proposed && `${now.proposed[0].toUpperCase()}${now.proposed.slice(1)}.`);
  el("d-sides").hidden = !now.sides; text("d-sides", now.sides);
  el("stages").replaceChildren(...now.stages.map(stageRow));
  text("losses", lost ? `Lost: ${Object.entries(now.losses).filter(([, n]) => n).map(([where, n]) => `${n} ${where}`).join(", ")}.` : "No frame was lost.");
}

function showDetection({ depth, accepted, fitted, compiling, errors_um: errors, left_out: left }) {
  const percent = (part) => (part == null ? "–" : `${(100 * part).toFixed(part > 0.995 || part < 0.1 ? 1 : 0)} %`), named = (um) => +um.toPrecision(2);
  const range = depth && [depth.low_um, depth.high_um], volume = last?.header.volume;
  drawHistogram(el("depth"), {
    edges: depth?.edges_um, values: depth?.particles, across: volume ? "height z, µm above the first slice" : "depth z, µm (range of the model)", up: "particles per frame",
    colour: depth && ((z) => depthColour(z, last?.header.depth_um ?? range)), nothing: depth || volume ? "no particles yet" : "no depth in 2D: start the run with a calibration or a model",
  });
  text("depth-caption", depth ? `last 10 s, ${volume ? "heights" : "depths"} ${depth.low_um.toFixed(0)} to ${depth.high_um.toFixed(0)} µm`.replaceAll("-", "−") : "");
  text("d-covered", depth ? percent(depth.covered) : "–");
  text("d-accepted", percent(accepted));
  text("d-errors", Object.values(errors).map(named).join(", ") || "–");
  const reasons = Object.entries(left).map(([why, count]) => `${count} ${LEFT_OUT_WORDS[why] ?? why}`);
  const why = compiling ? "as the fit was still being compiled" : "as there is no time for more";
  const reduced = fitted == null || fitted > 0.97 ? "" : volume ? `The whole fit on ${percent(fitted)} of particles, ${why}; a short one on the others. ` : `Fit on ${percent(fitted)} of particles, ${why}. `;
  text("d-left", reduced + (reasons.length ? `Left out so far: ${reasons.join(", ")}.` : ""));
}


function showFlow(flow) {
  el("flow").hidden = !flow;
  if (!flow) return;
  text("flow-caption", flow.was_before ? "before the pump was changed; it is being measured anew" : "the one of this channel that fits all trajectories; ± standard error");
  el("flow-rows").replaceChildren(...flow.rows.map(({ name, text: said }) => {
    const row = document.createElement("tr");
    for (const words of [name, said]) row.insertCell().textContent = words.replace(/-(?=\d)/g, "\u2212");
    row.classList.toggle("told", name === "model" && flow.differs);
    return row;
  }));
  drawResiduals(el("residuals"), flow);
}

function showDiffusion(found) {
  el("diffusion").hidden = !found.axes.some((one) => one.um2_s !== null);
  if (!el("diffusion").hidden) text("diffusion", diffusionWords(found));
  el("diffusion-over").hidden = !found.map;
  if (!found.map) return;
  text("diffusion-map-words", mapWords(found.map));
  drawDiffusion(el("diffusion-map"), found.map);
}

function showProperties(properties) {
  el("properties").hidden = !properties.length;
  const charts = el("property-charts");
  if (charts.dataset.names !== properties.map((one) => one.name).join()) {
    charts.dataset.names = properties.map((one) => one.name).join();
    charts.replaceChildren(...properties.flatMap(({ name }) => {
      const words = document.createElement("p"), chart = document.createElement("canvas");
      words.className = "quiet"; chart.className = "chart low"; chart.setAttribute("aria-label", name);
      return [words, chart];
    }));
  }
  properties.forEach(({ name, edges, counts, tracks, words }, i) => {
    const [line, chart] = [charts.children[2 * i], charts.children[2 * i + 1]];
    line.textContent = `${name}: ${words}, ${tracks} trajectories`.replaceAll("-", "\u2212");
    drawHistogram(chart, { edges, values: counts, across: name, up: "trajectories" });
  });
}

function showChecks(checks) {
  el("checks").hidden = !checks.length;
  el("check-rows").replaceChildren(...checks.map(({ name, value }) => {
    const row = document.createElement("tr");
    for (const words of [name, value]) row.insertCell().textContent = words.replace(/-(?=\d)/g, "\u2212");
    return row;
  }));
}

function stageRow(stage) {
  const row = document.createElement("tr");
  for (const value of [stage.name, stage.state, stage.received, stage.sent, stage.dropped, fixed(stage.queue, 0), fixed(stage.ms, 1)]) row.insertCell().textContent = value;
  return row;
}

function showEvent({ s, kind, text: said }) {
  const line = document.createElement("li"), time = document.createElement("time"), words = document.createElement("span");
  time.textContent = `${s.toFixed(1)} s`; words.textContent = said || kind; line.className = kind; line.append(time, words);
  el("events").prepend(line);
  while (el("events").children.length > 300) el("events").lastChild.remove();
}

async function snapshot() {
  if (!last) return;
  const { header, detections, tracks } = last, n = detections.length / 3, m = tracks.length / 4, lines = ["kind,track,x_um,y_um,z_um"];
  const value = (v) => (Number.isFinite(v) ? v.toFixed(4) : "");
  for (let i = 0; i < n; i++) lines.push(["detection", "", ...[0, 1, 2].map((c) => value(detections[c * n + i]))].join(","));
  for (let i = 0; i < m; i++) lines.push(["track", tracks[i], ...[1, 2, 3].map((c) => value(tracks[c * m + i]))].join(","));
  const name = `${summary?.run || "liveptv"}-frame${header.frame}`;
  save(`${name}.png`, await camera.png());
  save(`${name}.csv`, new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
}

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob); link.download = name; link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const filter = () => { el("image").style.filter = `brightness(${el("brightness").value}) contrast(${el("contrast").value})`; };
for (const id of ["brightness", "contrast"]) el(id).addEventListener("input", filter);
el("show-detections").addEventListener("change", (event) => { camera.detections = event.target.checked; camera.draw(); });
el("show-tails").addEventListener("change", (event) => { camera.tails = event.target.checked; camera.draw(); });
el("whole").addEventListener("click", () => { camera.whole(); el("brightness").value = el("contrast").value = 1; filter(); });
drawBar(el("z-bar"));
setInterval(() => say({ shown }), ALIVE_MS);
connect();
