// The dials: sliders, switches and the pad; and the looks, which set all of them.

import { all, check, find, radios } from "./dom.js";
import { LOOKS, lookOf } from "./looks.js";
import { CONFIG } from "./mount.js";
import { clamp, dialWords } from "./words.js";

const KNOB = 14;  // CSS pixels
const LORAS = ["consistency", "detail"];

export class Steering {
  /** @param {() => void} onScales @param {(strength: number) => void} onStrength */
  constructor(onScales, onStrength) {
    this.onScales = onScales;
    this.onStrength = onStrength;
    this.pad = find("#pad");
    find("#look").replaceChildren(...LOOKS.map((look) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("role", "radio");
      button.dataset.look = button.textContent = look.name;
      button.title = look.title;
      return button;
    }));
    radios(find("#look"), (button) => this.set(LOOKS.find((look) => look.name === button.dataset.look).dials));
    for (const name of LORAS) {
      find(`#${name}`).max = String(CONFIG.most);
      find(`#${name}`).addEventListener("input", () => {
        find(`#${name}-on`).checked = true;
        this.changed();
      });
      find(`#${name}-on`).addEventListener("change", () => this.changed());
    }
    find("#strength").addEventListener("input", () => { this.words(); this.onStrength(this.strength); });
    find("#steer-reset").addEventListener("click", () => this.set({ consistency: 1, detail: 1, strength: 1 }));
    this.pad.addEventListener("pointerdown", (event) => {
      this.pad.setPointerCapture(event.pointerId);
      this.toPointer(event);
    });
    this.pad.addEventListener("pointermove", (event) => {
      if (this.pad.hasPointerCapture(event.pointerId)) this.toPointer(event);
    });
    this.pad.addEventListener("keydown", (event) => this.key(event));
    this.words();
  }

  /** @param {string} name */
  scaleOf(name) { return find(`#${name}-on`).checked ? Number(find(`#${name}`).value) : 0; }
  get strength() { return Number(find("#strength").value); }
  get values() {
    return { consistency: this.scaleOf("consistency"), detail: this.scaleOf("detail"), strength: this.strength };
  }

  // Also for what a file, a cell of the contact sheet or a reload says.
  /** @param {{consistency?: number, detail?: number, strength?: number}} values */
  set(values, isQuiet = false) {
    for (const name of LORAS) {
      if (values[name] === undefined) continue;
      find(`#${name}-on`).checked = values[name] > 0;
      if (values[name] > 0) find(`#${name}`).value = values[name];
    }
    if (values.strength !== undefined) find("#strength").value = values.strength;
    this.words();
    if (isQuiet) return;
    this.onStrength(this.strength);
    this.onScales();
  }

  changed() { this.words(); this.onScales(); }

  words() {
    for (const name of LORAS) {
      const isOn = find(`#${name}-on`).checked;
      find(`output[for=${name}]`).textContent = isOn ? dialWords(Number(find(`#${name}`).value)) : "off";
      find(`#${name}`).classList.toggle("off", !isOn);
      this.pad.style.setProperty(name === "consistency" ? "--x" : "--y", String(this.scaleOf(name) / CONFIG.most));
    }
    find("output[for=strength]").textContent = `${Math.round(100 * this.strength)} %`;
    const look = lookOf(this.values);
    find("#look-words").textContent = look?.title ?? "custom dials";
    check(find("#look"), look && all("#look button").find((button) => button.dataset.look === look.name));
  }

  toPointer(event) {
    const box = this.pad.getBoundingClientRect();
    // The knob's middle goes to the pointer, and the knob stays within the pad.
    const to = (at, side) => Math.round(clamp((at - KNOB / 2) / (side - KNOB), 0, 1) * CONFIG.most * 20) / 20;
    this.set({
      consistency: to(event.clientX - box.left, box.width),
      detail: to(box.bottom - event.clientY, box.height),
    });
  }

  key(event) {
    const by = { ArrowLeft: ["consistency", -1], ArrowRight: ["consistency", 1], ArrowUp: ["detail", 1], ArrowDown: ["detail", -1] }[event.key];
    if (!by) return;
    event.preventDefault();
    const value = clamp(Math.round((this.scaleOf(by[0]) + 0.05 * by[1]) * 20) / 20, 0, CONFIG.most);
    this.set({ [by[0]]: value });
  }
}
