// Which two pictures the viewer compares: before, restored, a pinned look, or another result.

import { find } from "./dom.js";
import { RefusedError } from "./link.js";
import { settingsWords } from "./results.js";
import { AFTER, BEFORE, PINNED } from "./viewer.js";

export class Compare {
  constructor(link, viewer, preview, { look, onError }) {
    this.link = link;
    this.viewer = viewer;
    this.preview = preview;
    this.look = look;
    this.onError = onError;
    this.other = null;         // {token, result, video}: another result
    this.hasPinned = false;
    this.canvas = document.createElement("canvas");  // the other result's frame
    this.isPreview = true;
    for (const [which, id] of ["#side-a", "#side-b"].entries()) {
      find(id).addEventListener("change", () => {
        const pair = [...this.viewer.pair];
        pair[which] = Number(find(id).value);
        if (pair[0] === pair[1]) pair[1 - which] = this.viewer.pair[which];
        this.viewer.setPair(pair);
        this.words();
      });
    }
    find("#pin").addEventListener("click", () => this.toggle());
    this.words();
  }

  // Keep the look that is shown, or let it go.
  async toggle() {
    if (find("#pin").disabled) return;
    if (this.hasPinned) { this.forget(); return; }
    const { settings } = this.look();
    if (!this.preview.last) return;
    this.hasPinned = true;
    const { consistency, detail, strength } = settings;
    this.pinnedName = `Pinned: ${settingsWords({ consistency, detail, strength, scale: settings.scale }).replace(/, [\d.]+ ×$/, "")}`;
    await this.preview.pin({ settings: { consistency, detail }, strength });
    this.viewer.setPair([PINNED, AFTER]);
    this.words();
  }

  forget() {
    this.hasPinned = false;
    this.preview.pin(null);
    this.viewer.setPair([BEFORE, AFTER]);
    this.words();
  }

  shown(isPreview) {
    const has = isPreview ? this.hasPinned : Boolean(this.other);
    if (this.isPreview !== isPreview) {
      this.isPreview = isPreview;
      this.viewer.setPair(has ? [PINNED, AFTER] : [BEFORE, AFTER]);
      if (isPreview) this.viewer.pin(this.hasPinned ? this.preview.pinnedCanvas : null);
      else if (has) this.drawOther();
    }
    this.words();
  }

  words() {
    const has = this.isPreview ? this.hasPinned : Boolean(this.other);
    if (!has && this.viewer.pair.includes(PINNED)) this.viewer.pair = [BEFORE, AFTER];
    this.viewer.names[PINNED] = this.isPreview ? this.pinnedName ?? "Pinned look" : `Other: ${this.other ? settingsWords(this.other.result.settings) : ""}`;
    this.viewer.names[AFTER] = this.isPreview && has ? "Restored, dials of now" : "Restored";
    const choices = [[BEFORE, "Before"], [AFTER, "Restored"], ...(has ? [[PINNED, this.isPreview ? "Pinned look" : "Other result"]] : [])];
    for (const [which, id] of ["#side-a", "#side-b"].entries()) {
      const select = find(id);
      select.replaceChildren(...choices.map(([value, text]) => new Option(String(text), String(value))));
      select.value = String(this.viewer.pair[which]);
    }
    find("#pairing").classList.toggle("two", !has);
    const pin = find("#pin");
    pin.setAttribute("aria-pressed", String(this.hasPinned));
    pin.textContent = this.hasPinned ? "Unpin" : "Pin look";
    pin.disabled = !this.isPreview;
    this.viewer.draw();
  }

  // Another result beside the one that is shown, frame by frame.
  async withOther(token, result) {
    this.forgetOther();
    const video = document.createElement("video");
    Object.assign(video, { muted: true, playsInline: true, preload: "auto", src: this.link.url(`files/${result.viewer}`, {}, token) });
    await new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = () => reject(new RefusedError("The other result cannot be played; it may have expired."));
    });
    this.other = { token, result, video };
    video.addEventListener("seeked", () => this.drawOther());
    this.viewer.setPair([PINNED, AFTER]);
    this.words();
  }

  forgetOther() {
    this.other?.video.removeAttribute("src");
    this.other = null;
    if (!this.isPreview) { this.viewer.pin(null); this.words(); }
  }

  // The shown result stands at ``second`` of the source.
  at(second, isPlaying) {
    if (!this.other) return;
    const { video, result } = this.other;
    const wanted = Math.min(Math.max(second - result.start + 0.001, 0), result.end - 0.001);
    if (!isPlaying) video.pause();
    if (isPlaying && video.paused) video.play().catch(() => {});
    if (Math.abs(video.currentTime - wanted) > (isPlaying ? 0.12 : 0.004)) video.currentTime = wanted;
    else this.drawOther();
  }

  drawOther() {
    if (!this.other || this.isPreview) return;
    const { video } = this.other, { canvas } = this;
    if (!video.videoWidth) return;
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight / 2;
    canvas.getContext("2d").drawImage(video, 0, -canvas.height);
    this.viewer.pin(canvas);
  }
}
