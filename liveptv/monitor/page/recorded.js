const el = (id) => document.getElementById(id);

// The recorded events: a button with a field for the reason, and the list of what was kept.
export class Recorded {
  constructor(command) {
    el("keep").addEventListener("click", () => { el("keep-text").value = ""; el("keep-dialog").returnValue = ""; el("keep-dialog").showModal(); });
    el("keep-dialog").addEventListener("close", () => { if (el("keep-dialog").returnValue === "keep") command("record", el("keep-text").value, "Keep frames"); });
    el("keep-text").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); el("keep-dialog").close("keep"); } });
  }

  show(recorded, acts) {
    el("keep").hidden = !recorded;
    el("keep").disabled = !acts;
    el("kept").hidden = !recorded;
    if (!recorded) return;
    const { mode, before_s: before, after_s: after, events } = recorded, span = `${before} s before now and ${after} s after`;
    el("keep-what").textContent = mode === "all" ? `All frames are recorded; those from ${span} are marked.` : `The frames from ${span} are kept in the recording.`;
    el("kept-caption").textContent = mode === "all" ? "marked among all frames" : `${before} s before and ${after} s after each`;
    el("kept-rows").replaceChildren(...events.map(row));
    el("kept-none").hidden = events.length > 0;
  }
}

function row({ event, why, sender, frame, time_s: time, frames, lost, ended }) {
  const line = document.createElement("tr");
  const kept = ended ? `${frames}${lost ? `, ${lost} lost` : ""}` : "…";
  for (const value of [event, `${time.toFixed(2)} s`, frame < 0 ? "–" : frame, why || "–", sender || "–", kept]) line.insertCell().textContent = value;
  line.classList.toggle("lost", lost > 0);
  return line;
}
