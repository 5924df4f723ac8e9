// The settings: what the controls say, what a file or a reload puts back, and what a run would make.

import { find } from "./dom.js";
import { goesWith } from "./formats.js";
import { GoneError, RefusedError } from "./link.js";

const SELECTS = ["format", "bit_depth", "window", "color_fix", "tile", "crf", "deinterlace"];
const MEMORY = "dloral-settings";   // of this tab, so that a reload finds the controls as they were
const PLAN_AFTER = 120;             // ms after the last change

export class Controls {
  // ``look()``: {clip, model, frame, isRunning} of this moment.
  constructor(link, { steering, strip, scenes, size }, { look, onChange, onGone }) {
    this.link = link;
    this.steering = steering;
    this.strip = strip;
    this.scenes = scenes;
    this.size = size;
    this.look = look;
    this.onChange = onChange;
    this.onGone = onGone;
    for (const name of [...SELECTS, "prompt"]) find(`#${name}`).addEventListener("change", () => this.onChange());
  }

  get values() {
    const choice = (name) => find(`#${name}`).value;
    const tile = choice("tile"), { crf, bits } = this.kept;
    return {
      scale: this.size.scale, fit: this.size.fit, ...this.steering.values, ...this.strip.values,
      window: Number(choice("window")), color_fix: choice("color_fix"),
      tile: ["auto", "none"].includes(tile) ? tile : Number(tile),
      crf: crf && choice("crf") !== "" ? Number(choice("crf")) : null,
      bit_depth: bits && choice("bit_depth") !== "auto" ? Number(choice("bit_depth")) : "auto",
      deinterlace: choice("deinterlace"),
      format: choice("format"), ...(this.look().model?.prompts ? { prompt: find("#prompt").value, ...this.scenes.values } : { prompt: "" }),
    };
  }

  // The same for a run of this clip: only videos are deinterlaced, and the choice stays for the next.
  get ofClip() { return this.look().clip?.kind === "video" ? this.values : { ...this.values, deinterlace: "auto" }; }

  get kept() { return goesWith(find("#format").value, this.look().clip?.kind === "image"); }

  put(settings) {
    this.steering.set(settings, true);
    const put = { ...settings, tile: settings.tile ?? "none", crf: settings.crf ?? "" };
    if (put.scale !== undefined) this.size.set(put.scale);
    for (const name of ["prompt", ...SELECTS]) {
      if (put[name] === undefined) continue;
      const control = find(`#${name}`), value = String(put[name]);
      if (control.tagName === "SELECT" && ![...control.options].some((option) => option.value === value)) control.add(new Option(value, value));
      control.value = value;
    }
    this.strip.set(settings);
    this.scenes.put(settings.scenes ?? []);
  }

  remember() {
    sessionStorage.setItem(MEMORY, JSON.stringify({ ...this.values, frame: this.look().frame }));
  }

  // What this tab had, also for what comes later; null in a new one.
  recall() {
    try { this.remembered = JSON.parse(sessionStorage.getItem(MEMORY)); } catch { this.remembered = null; }
    if (this.remembered) this.put(this.remembered);
  }

  words() {
    const { format, crf, bits } = this.kept;
    for (const name of ["format", "bit_depth", "crf"]) find(`#${name}`).closest("label").hidden = !format;
    find("#kept-as-png").hidden = format;
    find("#crf").disabled = !crf;
    find("#bit_depth").disabled = !bits;
    this.scenes.words();
    this.size.words();
  }

  planSoon() {
    this.remember();
    clearTimeout(this.planTimer);
    this.planTimer = setTimeout(() => this.plan(), PLAN_AFTER);
  }

  async plan() {
    if (!this.look().clip) { this.planned("", null); return; }
    try {
      const { words, warning, notes } = await this.link.call("POST", "plan", { body: { settings: this.values } });
      this.planned(words.join(" · "), warning, notes);
      find("#warning").classList.add("advice");
      find("#run").disabled = this.look().isRunning;
    } catch (error) {
      if (!(error instanceof RefusedError)) { if (error instanceof GoneError) this.onGone(); return; }
      this.planned("", error.message);
      find("#run").disabled = true;
    }
  }

  planned(words, warning, notes = []) {
    find("#treatment").textContent = notes.join("; ");
    find("#treatment").hidden = !notes.length;
    find("#plan").textContent = words;
    find("#warning").textContent = warning ?? "";
    find("#warning").hidden = !warning;
    find("#warning").classList.remove("advice");
  }
}
