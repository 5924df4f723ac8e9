// What can be done with a result: downloads, comparison clips, curves; and which settings made it.

import { download, find } from "./dom.js";
import { lookOf } from "./looks.js";
import { bytesWords, dialWords } from "./words.js";

const COMPARED = ["scale", "consistency", "detail", "strength", "window", "prompt", "scenes", "color_fix", "tile", "deinterlace", "format", "bit_depth", "crf", "start", "duration"];

export class Results {
  constructor(link, curves, { onError, onBack, look }) {
    this.link = link;
    this.curves = curves;
    this.onError = onError;
    this.result = null;
    find("#measures-open").addEventListener("click", () => this.toggleMeasures());
    for (const id of ["#download", "#settings-file"]) find(id).addEventListener("click", (event) => this.fetch(event, look));
    find("#share-layout").addEventListener("change", () => this.shareable());
    find("#share").addEventListener("click", (event) => this.share(event.currentTarget));
    find("#moved-back").addEventListener("click", () => onBack(this.result.settings));
  }

  offer(result) {
    this.result = result;
    find("#results").hidden = false;
    const button = find("#download");
    button.href = this.link.url(`files/${result.file}`, { download: 1 });
    button.download = result.file;
    button.textContent = `Download (${bytesWords(result.bytes)})`;
    button.title = result.file;
    const settings = find("#settings-file");
    settings.href = this.link.url(`files/${result.settings_file}`, { download: 1 });
    settings.download = result.settings_file;
    find(".share").hidden = find("#measures-open").hidden = result.image;
    find("#made-with").textContent = `${result.part ? `Partial result, ${result.times.length} frames. ` : ""}Made with: ${settingsWords(result.settings)}, ${result.width} × ${result.height}`;
    find("#notes").textContent = result.notes.join("; ");
    find("#notes").hidden = !result.notes.length;
  }

  // A link to a result that has expired would save a page of nothing: the server is asked first, and
  // ``look()`` says on the page what is gone.
  async fetch(event, look) {
    const { href, download: name } = event.currentTarget;
    event.preventDefault();
    await look();
    if (this.result) download(href, name);
  }

  // Whether the dials still say what the result was made with.
  compare(settings) {
    if (!this.result) return;
    find("#moved").hidden = !differs(this.result.settings, settings);
  }

  // All of it, restored alone, is what the download gives.
  shareable() {
    const select = find("#share-format"), alone = find("#share-layout").value === "after";
    const [whole, loop] = select.options;
    whole.disabled = alone;
    if (alone && whole.selected) loop.selected = true;
  }

  forget() { this.result = null; find("#results").hidden = find("#moved").hidden = true; }

  toggleMeasures() {
    const button = find("#measures-open"), isOpen = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(isOpen));
    find("#measures").hidden = !isOpen;
    this.curves.draw();
    if (isOpen) find("#measures").scrollIntoView({ block: "nearest" });
  }

  async share(button) {
    const words = button.textContent, layout = find("#share-layout").value, format = find("#share-format").value;
    button.disabled = true;
    button.textContent = "Saving …";
    try {
      const { file } = await this.link.call("POST", "comparison", { parameters: { layout, format } });
      download(this.link.url(`files/${file}`, { download: 1 }), file);
    } catch (error) { this.onError(error); } finally {
      button.disabled = false;
      button.textContent = words;
      button.focus();
    }
  }
}

// Whether a run with other settings was, or will be, made.
/** @param {any} made @param {any} settings */
export const differs = (made, settings) => COMPARED.some((name) => name in settings && told(made, name) !== told(settings, name));

// The server says null for a tile of none.
const told = (settings, name) => JSON.stringify((name === "tile" && settings.tile === "none" ? null : settings[name]) ?? null);

// The look by its name, if it has one, and where the dials stand.
/** @param {any} settings */
export const lookWords = (settings) => {
  const look = lookOf(settings), dials = `consistency ${dialWords(settings.consistency)}, detail ${dialWords(settings.detail)}`;
  const strength = settings.strength < 1 ? `, strength ${Math.round(100 * settings.strength)} %` : "";
  return look ? `${look.name} (${dials}${strength})` : `${dials}${strength}`;
};

/** @param {any} settings */
export const settingsWords = (settings) => `${lookWords(settings)}, ${Math.round(100 * settings.scale) / 100} ×`;
