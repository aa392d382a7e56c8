const el = (id) => document.getElementById(id);
const make = (tag, text = "", name = "") => { const made = document.createElement(tag); made.textContent = text; made.className = name; return made; };
const shown = (value) => (typeof value === "number" ? String(+value.toPrecision(4)).replace("-", "−") : String(value));

function inWords(name, value, units) {
  const [suffix, unit] = units.find(([end]) => name.endsWith(end)) || ["", ""];
  return `${name.slice(0, name.length - suffix.length).replaceAll("_", " ")} ${shown(value)}${unit ? ` ${unit}` : ""}`;
}

const inTime = (s) => (s < 90 ? `about ${Math.ceil(s)} s` : s < 5400 ? `about ${Math.round(s / 60)} min` : `about ${Math.round(s / 3600)} h`);

// The controllers, each with its state and a form for its settings; the run itself checks the settings.
export class Controllers {
  constructor(command) { Object.assign(this, { command, forms: [], units: [], rows: new Map(), now: null, acts: false }); }

  offer(forms, units) {
    this.forms = forms; this.units = units; this.filled = ""; this.rows.clear();
    el("controllers").replaceChildren(...forms.map((form) => this.row(form)));
    this.show(this.now, this.acts);
  }

  row(form) {
    const row = make("details", "", "controller"), head = make("summary"), state = make("span", "off", "pill"), about = make("p", form.about, "quiet");
    head.append(make("b", form.title), state);
    const body = make("form"), grid = make("div", "", "fields"), more = make("details", "", "more"), rest = make("div", "", "fields");
    const inputs = form.fields.map((field) => { const [label, input] = this.field(field); (field.required || field.value !== undefined ? grid : rest).append(label); return [field, input]; });
    if (!grid.children.length) grid.append(...[...rest.children].splice(0, 4));
    more.append(make("summary", "more settings"), rest);
    const on = make("button", "Switch on", "main"), off = make("button", "Switch off"), line = make("p", "", "row");
    off.type = "button"; line.append(off, on);
    body.append(about, grid, ...(rest.children.length ? [more] : []), line);
    body.addEventListener("submit", (event) => { event.preventDefault(); this.ask(form, inputs); });
    off.addEventListener("click", () => this.command("control", {}, `${form.title} off`));
    row.append(head, make("p", "", "measured quiet"), body);
    this.rows.set(form.kind, { row, state, on, off, inputs, measured: row.querySelector(".measured") });
    return row;
  }

  field({ name, label, unit, type, about, required, value, default: preset, choices }) {
    const whole = make("label"), input = document.createElement(type === "choice" ? "select" : "input");
    whole.title = about || name;
    if (type === "choice") for (const choice of choices) input.append(new Option(choice, choice, choice === preset, choice === (value ?? preset)));
    else if (type === "number" || type === "whole") { input.type = "number"; input.step = type === "whole" ? 1 : "any"; input.inputMode = "decimal"; }
    else if (type === "flag") { input.type = "checkbox"; input.checked = Boolean(value ?? preset); }
    else input.placeholder = type === "list" ? "50, 100, 150" : "";
    if (value !== undefined && type !== "choice" && type !== "flag") input.value = Array.isArray(value) ? value.map((v) => +v.toFixed(3)).join(", ") : value;
    if (preset !== undefined && type !== "choice" && type !== "flag") input.placeholder = preset;
    input.required = required; input.name = name;
    whole.append(make("span", label), input, make("small", unit || ""));
    return [whole, input];
  }

  ask(form, inputs) {
    const settings = {};
    for (const [field, input] of inputs) {
      if (field.type === "flag") settings[field.name] = input.checked;
      else if (field.type === "choice") { if (input.value !== field.default) settings[field.name] = input.value; }
      else if (input.value.trim() === "") continue;
      else if (field.type === "list") settings[field.name] = input.value.split(/[,;\s]+/).filter(Boolean).map(Number);
      else settings[field.name] = field.type === "text" ? input.value : Number(input.value);
    }
    const value = form.kind === "file" ? { file: form.file, options: settings } : { [form.kind]: settings };
    this.command("control", value, `${form.title} on`);
  }

  // Fills a form with the settings of the controller that is on, which another page or the experiment file may have set.
  fill(inputs, settings) {
    for (const [field, input] of inputs) {
      const value = settings[field.name];
      if (value === undefined || value === null) continue;
      if (field.type === "flag") input.checked = Boolean(value);
      else input.value = Array.isArray(value) ? value.join(", ") : value;
    }
  }

  show(control, acts, over = false) {
    this.now = control; this.acts = acts;
    el("no-controllers").hidden = Boolean(control && this.forms.length);
    const kind = control ? control.on : "";
    el("protocol").hidden = kind !== "protocol";
    for (const button of el("protocol").querySelectorAll("button")) button.disabled = !acts;
    el("protocol-measured").textContent = kind === "protocol" ? this.measured(control) : "";
    const filled = kind ? JSON.stringify([kind, control.settings]) : "";
    if (filled && filled !== this.filled && this.rows.has(kind)) this.fill(this.rows.get(kind).inputs, control.settings);
    this.filled = filled;
    for (const [name, { row, state, on, off, measured }] of this.rows) {
      const active = name === kind, word = !active ? "off" : control.works ? (over ? "over" : "on") : "failed";
      state.textContent = word === "over" ? "was on" : word; row.dataset.state = word;
      on.disabled = !acts; off.disabled = !acts || !active;
      on.textContent = active ? "Change" : "Switch on";
      measured.textContent = active ? (word === "failed" ? "failed, and the hardware was made safe; the reason is in the event log" : this.measured(control)) : "";
    }
  }

  measured({ measured, settings }) {
    const found = Object.entries(measured).filter(([, value]) => value !== null);
    const left = found.findIndex(([name]) => name === "left_s"), time = left < 0 ? "" : inTime(found.splice(left, 1)[0][1]);
    const words = (found.length ? found : Object.entries(settings)).map(([name, value]) => inWords(name, value, this.units)).join(", ");
    return time ? `${time} left; ${words}` : words;
  }
}
