// Measures of a result, frame by frame; a press goes to that frame.

import { all, check, find, pictureFrom, radios } from "./dom.js";
import { clamp } from "./words.js";

const CURVE_WORDS = {
  sharpness: "mean gradient, grey levels", flicker: "change that is not motion, grey levels",
  difference: "from plain enlargement, grey levels", profile: "before left, restored right: the middle row of every frame, time running down",
};

export class Curves {
  constructor(link, onSeek) {
    this.link = link;
    this.canvas = find("#plot");
    this.name = "sharpness";
    this.index = 0;
    radios(find("#curve"), (button) => this.choose(button.dataset.curve));
    const seek = (event) => {
      if (!this.result || this.name === "profile") return;
      const box = this.canvas.getBoundingClientRect(), { left, right } = this.margins;
      const share = (event.clientX - box.left - left) / (box.width - left - right);
      onSeek(Math.round(clamp(share, 0, 1) * (this.result.times.length - 1)));
    };
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); seek(event); });
    this.canvas.addEventListener("pointermove", (event) => { if (this.canvas.hasPointerCapture(event.pointerId)) seek(event); });
    this.canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by && this.result) { event.preventDefault(); onSeek(this.index + by); }
    });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  get margins() { return { left: 40, right: 10, top: 8, bottom: 18 }; }

  async load(result) {
    this.result = result;
    this.profile = null;
    this.draw();
    const response = await fetch(this.link.url(`files/${result.profile}`));
    if (response.ok) this.profile = await pictureFrom(await response.blob());
    this.draw();
  }

  choose(name) {
    this.name = name;
    check(find("#curve"), all("#curve button").find((button) => button.dataset.curve === name));
    this.draw();
  }

  at(index) { this.index = index; this.draw(); }

  draw() {
    const { canvas } = this, ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !this.result) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const colours = [style.getPropertyValue("--grey"), style.getPropertyValue("--accent")];
    this.legend(colours);
    if (this.name === "profile") this.drawProfile(context, width, height);
    else this.drawCurves(context, width, height, colours, style);
  }

  legend(colours) {
    const both = ["difference", "profile"].includes(this.name) ? [] : [["before", colours[0]], ["restored", colours[1]]];
    find("#legend").replaceChildren(...both.map(([word, colour]) => {
      const span = document.createElement("span");
      span.textContent = word;
      span.style.setProperty("--key", colour);
      return span;
    }), CURVE_WORDS[this.name]);
  }

  drawCurves(context, width, height, colours, style) {
    const { left, right, top, bottom } = this.margins, { measures, times } = this.result;
    const lines = this.name === "difference" ? [[measures.difference, colours[1]]]
      : [[measures[`${this.name}_bicubic`], colours[0]], [measures[`${this.name}_restored`], colours[1]]];
    const seen = lines.flatMap(([values]) => values.slice(this.name === "flicker" && values.length > 1 ? 1 : 0));
    const highest = Math.max(...seen, 1e-3), lowest = Math.min(...seen);
    const room = 0.25 * Math.max(highest - lowest, 0.04 * highest);
    const least = Math.max(0, lowest - room), most = highest + room;
    const x = (index) => left + (width - left - right) * (times.length > 1 ? index / (times.length - 1) : 0.5);
    const y = (value) => height - bottom - (height - top - bottom) * (value - least) / (most - least);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = context.strokeStyle = style.getPropertyValue("--grey");
    context.textAlign = "right";
    context.textBaseline = "middle";
    const digits = most - least < 1 ? 2 : 1;
    for (const value of [least, (least + most) / 2, most]) {
      context.fillText(value.toFixed(digits), left - 6, y(value));
      context.globalAlpha = 0.25;
      context.fillRect(left, Math.round(y(value)), width - left - right, 1);
      context.globalAlpha = 1;
    }
    context.textBaseline = "bottom";
    context.textAlign = "left";
    context.fillText("frame 1", left, height - 1);
    context.textAlign = "right";
    context.fillText(String(times.length), width - right, height - 1);
    for (const [values, colour] of lines) {
      context.strokeStyle = context.fillStyle = colour;
      context.lineWidth = 1.6;
      context.beginPath();
      // the first frame has no predecessor to flicker against
      const first = this.name === "flicker" && values.length > 1 ? 1 : 0;
      values.forEach((value, index) => { if (index >= first) context.lineTo(x(index), y(value)); });
      context.stroke();
      const now = values[Math.min(this.index, values.length - 1)];
      if (this.index >= first) { context.beginPath(); context.arc(x(this.index), y(now), 3.5, 0, 7); context.fill(); }
    }
    context.fillStyle = style.getPropertyValue("--grey");
    context.globalAlpha = 0.5;
    context.fillRect(Math.round(x(this.index)), top, 1, height - top - bottom);
    context.globalAlpha = 1;
  }

  drawProfile(context, width, height) {
    if (!this.profile) return;
    const gap = 8, half = (width - gap) / 2, rows = this.profile.height / 2;
    for (const which of [0, 1]) context.drawImage(this.profile, 0, which * rows, this.profile.width, rows, which * (half + gap), 0, half, height);
  }
}
