// How large the result becomes: an enlargement, or a named size that the clip is fitted into.

import { all, check, find, radios } from "./dom.js";
import { fitOf, scaleOf, sizeOf } from "./looks.js";
import { CONFIG } from "./mount.js";
import { clamp } from "./words.js";

export class Size {
  /** @param {() => void} onChange */
  constructor(onChange) {
    this.scale = 4;
    this.name = "4";
    this.clip = null;
    const slider = find("#scale");
    slider.addEventListener("input", () => { this.scale = Number(slider.value); this.name = "own"; this.words(); onChange(); });
    radios(find("#size"), (button) => {
      this.name = button.dataset.size;
      if (this.name !== "own") this.scale = scaleOf(this.name, this.clip ?? { width: 480, height: 270 }, CONFIG.scale) ?? this.scale;
      slider.value = String(this.scale);
      this.words();
      onChange();
    });
  }

  /** @param {number} scale */
  set(scale) {
    this.scale = clamp(Number(scale), ...CONFIG.scale);
    this.name = sizeOf(this.scale, this.clip ?? { width: 480, height: 270 }, CONFIG.scale);
    find("#scale").value = String(this.scale);
    this.words();
  }

  opened(clip) { this.clip = clip; }

  // Met to the pixel in a run, with even sides; null where the enlargement alone counts.
  get fit() { return fitOf(this.name, this.clip); }

  words() {
    const { clip, scale } = this, times = `${Math.round(100 * scale) / 100} ×`;
    const size = clip ? `${Math.round(clip.width * scale)} × ${Math.round(clip.height * scale)}` : times;
    for (const button of all("#size button")) {
      const { size: name } = button.dataset;
      button.disabled = Boolean(clip) && name !== "own" && scaleOf(name, clip, CONFIG.scale) === null;
    }
    check(find("#size"), find(`#size [data-size="${this.name}"]`));
    find("#own-size").hidden = this.name !== "own";
    find("output[for=scale]").textContent = times;
    find("#size-words").textContent = size;
  }
}
