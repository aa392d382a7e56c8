import { Controllers } from "./controllers.js";
import { Recorded } from "./recorded.js";

const el = (id) => document.getElementById(id);
const number = (value, digits = 4) => (value == null ? "?" : String(+value.toPrecision(digits)).replace("-", "−"));

// The buttons and forms: each sends a command and shows the run's answer to it.
export class Steering {
  constructor(send, snapshot) {
    Object.assign(this, { send, next: 1, waiting: new Map(), summary: {}, controllers: new Controllers((...command) => this.command(...command)), recorded: new Recorded((...command) => this.command(...command)) });
    for (const form of document.querySelectorAll("#steer form[data-kind]")) form.addEventListener("submit", (event) => {
      event.preventDefault();
      const value = form.querySelector("input").valueAsNumber, name = form.querySelector("label").textContent;
      if (Number.isFinite(value)) this.command(form.dataset.kind, value, `${name} ${number(value)} ${form.querySelector("span").textContent}`);
      else this.say(`Enter a number for ${name.toLowerCase()}`, "no");
    });
    el("pause").addEventListener("click", () => { const paused = this.summary.state === "paused"; this.command(paused ? "resume" : "pause", null, paused ? "Resume" : "Pause"); });
    el("mark").addEventListener("click", () => { el("mark-text").value = ""; el("mark-dialog").returnValue = ""; el("mark-dialog").showModal(); });
    el("mark-dialog").addEventListener("close", () => { if (el("mark-dialog").returnValue === "mark") this.command("mark", el("mark-text").value, "Note"); });
    el("mark-text").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); el("mark-dialog").close("mark"); } });
    el("snapshot").addEventListener("click", snapshot);
    el("protocol-off").addEventListener("click", () => this.command("control", {}, "Protocol off"));
    el("stop").addEventListener("click", () => { el("stop-text").textContent = this.consequence(); el("stop-dialog").showModal(); });
    for (const button of el("stop-dialog").querySelectorAll("button")) button.addEventListener("click", () => { el("stop-dialog").close(); if (button.value === "stop") this.command("stop", null, "Stop"); });
  }

  // Of a volume, "up" moves the whole scan. Proposed is its height: the next one then begins where this one ends.
  // The arrows of the field go by slices; without validation other numbers can be entered as well.
  scans({ slices, z_um: [low, high] }) {
    if (this.height === high - low) return;
    this.height = high - low;
    const field = el("s-slice");
    field.form.noValidate = true;
    field.step = +(this.height / slices).toPrecision(6); field.defaultValue = field.value = +this.height.toPrecision(6);
    document.querySelector('label[for="s-slice"]').textContent = "Scan";
    el("l-slice").textContent = `moves the scan up by this step; ${number(this.height)} µm is its height, ${number(this.height / slices)} µm a slice`;
  }

  consequence() {
    const { limits = {}, frames, output } = this.summary, safe = [];
    if (limits.safe_flow_ul_s != null) safe.push(`the pump goes to ${limits.safe_flow_ul_s} µL/s`);
    if (limits.safe_focus_um != null) safe.push(`the focus goes to ${limits.safe_focus_um} µm`);
    return `The camera stops; ${safe.length ? safe.join(" and ") : "pump and focus stay as they are"}. Frames already taken are still tracked, and ${output || "the trajectory file"} is completed (${frames} frames so far). A stopped run cannot be resumed.`;
  }

  command(kind, value, words) {
    const id = this.next++;
    this.waiting.set(id, words);
    this.say(`${words} …`, "");
    if (!this.send({ wish: { kind, value }, id })) this.say(`${words}: not sent, the page has no connection to the run`, "no");
  }

  answered({ to, accepted, reason, first_frame: first }) {
    const words = this.waiting.get(to) || "command";
    this.waiting.delete(to);
    if (!accepted) this.say(`${words}: refused, ${reason}`, "no");
    else this.say(`${words}: done${first >= 0 ? `; the first frame ${words === "Keep frames" ? "kept" : "with it"} is ${first}` : ""}`, "yes");
  }

  say(text, kind) { el("answer").textContent = text; el("answer").className = `answer ${kind}`; }

  show(summary) {
    this.summary = summary;
    const acts = ["running", "paused"].includes(summary.state), live = acts && summary.is_live;
    el("pause").disabled = el("stop").disabled = el("mark").disabled = !acts;
    el("pause").textContent = summary.state === "paused" ? "Resume" : "Pause";
    for (const part of document.querySelectorAll("#steer form[data-kind] :is(button, input)")) part.disabled = !live;
    const { limits = {} } = summary, range = (low, high, unit) => `${number(low)} to ${number(high)} ${unit}`;
    el("l-flow").textContent = limits.max_flow_ul_s == null ? "needs limits.max_flow_ul_s" : range(limits.min_flow_ul_s, limits.max_flow_ul_s, "µL/s");
    el("l-focus").textContent = limits.min_focus_um == null ? "needs limits.min_focus_um" : range(limits.min_focus_um, limits.max_focus_um, "µm");
    el("l-exposure").textContent = limits.min_exposure_ms == null ? "" : range(limits.min_exposure_ms, limits.max_exposure_ms, "ms");
    for (const [id, value] of [["s-flow", summary.flow_ul_s], ["s-focus", summary.focus_um], ["s-exposure", summary.exposure_ms]]) el(id).placeholder = value == null ? "" : number(value);
    this.recorded.show(summary.recorded, acts);
    this.controllers.show(summary.control, live, ["ended", "failed"].includes(summary.state));
  }
}
