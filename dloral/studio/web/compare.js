// Which two pictures the viewer compares: before, restored, a pinned look, the result, another result.

import { announce, find, pictureFrom } from "./dom.js";
import { RefusedError } from "./link.js";
import { lookOf } from "./looks.js";
import { lookWords, settingsWords } from "./results.js";
import { AFTER, BEFORE, OTHER, PINNED, RESULT } from "./viewer.js";

export class Compare {
  // ``look()``: {settings(), result, indexAt(second of the source)} of this moment.
  constructor(link, viewer, preview, { look, onError }) {
    this.link = link;
    this.viewer = viewer;
    this.preview = preview;
    this.look = look;
    this.onError = onError;
    this.other = null;         // {token, result, video}: another result
    this.hasPinned = false;
    this.isPreview = true;
    this.second = 0;           // of the source, that is shown
    this.share = 1;            // of the previewed frame, that is restored
    for (const [which, id] of ["#side-a", "#side-b"].entries()) {
      find(id).addEventListener("change", () => {
        const pair = [...this.viewer.pair];
        pair[which] = Number(find(id).value);
        if (pair[0] === pair[1]) pair[1 - which] = this.viewer.pair[which];
        this.viewer.setPair(pair);
        this.words();
        this.at(this.second, false);
      });
    }
    find("#pin").addEventListener("click", () => this.toggle());
    this.words();
  }

  // Keep the look that is shown, or let it go.
  async toggle() {
    if (find("#pin").disabled) return;
    if (this.hasPinned) { this.forget(); return; }
    if (!this.preview.last) return;
    this.hasPinned = true;
    const settings = this.look().settings(), { consistency, detail, strength } = settings;
    this.viewer.names[PINNED] = `Pinned: ${lookName(settings)}`;
    await this.preview.pin({ settings: { consistency, detail }, strength });
    this.viewer.setPair([PINNED, AFTER]);
    this.words();
    // said where the next step is, and gone with it
    find("#look-words").textContent = "pinned; now choose another";
    announce("This look is pinned. Choose another look to compare with it.");
  }

  forget() {
    this.hasPinned = false;
    this.preview.pin(null);
    this.viewer.setPair([BEFORE, AFTER]);
    this.words();
  }

  shown(isPreview) {
    if (this.isPreview !== isPreview) {
      this.isPreview = isPreview;
      const kept = isPreview ? this.hasPinned && PINNED : this.other && OTHER;
      this.viewer.setPair([kept || BEFORE, AFTER]);
    }
    this.words();
  }

  // What there is to compare: a preview of any frame with all of them, a result that plays with
  // what plays beside it.
  get choices() {
    const { result } = this.look(), isPreview = this.isPreview;
    const makes = result && isPreview ? "Current settings" : "Restored";
    return [
      [BEFORE, "Before"], [AFTER, makes],
      ...(isPreview && this.hasPinned ? [[PINNED, "Pinned look"]] : []),
      ...(isPreview && result ? [[RESULT, "Result"]] : []),
      ...(this.other ? [[OTHER, "Other result"]] : []),
    ];
  }

  words() {
    const { choices, viewer } = this, has = choices.map(([which]) => which);
    if (!viewer.pair.every((which) => has.includes(which))) viewer.pair = [BEFORE, AFTER];
    viewer.names[RESULT] = `Result: ${words(this.look().result)}`;
    viewer.names[OTHER] = `Other: ${words(this.other?.result)}`;
    viewer.names[AFTER] = this.restoredWords;
    for (const [which, id] of ["#side-a", "#side-b"].entries()) {
      const select = find(id);
      select.replaceChildren(...choices.map(([value, text]) => new Option(String(text), String(value))));
      select.value = String(viewer.pair[which]);
    }
    find("#pairing").classList.toggle("two", choices.length === 2);
    const pin = find("#pin");
    pin.setAttribute("aria-pressed", String(this.hasPinned));
    pin.textContent = this.hasPinned ? "Unpin" : "Pin look";
    pin.disabled = !this.isPreview;
    viewer.draw();
  }

  // ``share`` of the previewed frame is restored.
  restored(share) {
    this.share = share;
    this.viewer.names[AFTER] = this.restoredWords;
    if (this.isPreview) this.viewer.draw();
  }

  // Beside a pinned look, which look it is; a part of a frame is not called the whole.
  get restoredWords() {
    if (!this.isPreview) return "Restored";
    const name = this.hasPinned ? `Current: ${lookName(this.look().settings())}` : this.choices.length > 2 ? "Restored, current settings" : "Restored";
    return this.share > 0.9999 ? name : `${name}, ${Math.max(1, Math.floor(100 * this.share))} % so far`;
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
    this.viewer.setPair([OTHER, AFTER]);
    this.words();
  }

  forgetOther() {
    this.other?.video.removeAttribute("src");
    this.other = null;
    this.words();
  }

  // ``second`` of the source is shown.
  at(second, isPlaying) {
    this.second = second;
    if (this.viewer.pair.includes(RESULT)) this.drawResult().catch(this.onError);
    if (!this.other) return;
    const { video, result } = this.other;
    const wanted = Math.min(Math.max(second - result.start + 0.001, 0), result.end - 0.001);
    if (!isPlaying) video.pause();
    if (isPlaying && video.paused) video.play().catch(() => {});
    if (Math.abs(video.currentTime - wanted) > (isPlaying ? 0.12 : 0.004)) video.currentTime = wanted;
    else this.drawOther();
  }

  drawOther() {
    const video = this.other?.video, height = (video?.videoHeight ?? 0) / 2;
    if (height) this.viewer.put(OTHER, video, height, height);
  }

  // The result's frame of the moment that is previewed, or the nearest that it has.
  async drawResult() {
    const { result, indexAt } = this.look(), frame = indexAt(this.second), { drawn } = this;
    if (drawn?.result === result && drawn.frame === frame) return;
    const own = this.drawn = { result, frame };
    const { blob } = await this.link.call("GET", "still", { parameters: { frame } });
    const picture = await pictureFrom(blob);
    if (this.drawn === own) this.viewer.put(RESULT, picture, picture.height / 2, picture.height / 2);
  }
}

// Short enough for a narrow picture; where the dials stand is told under "Fine tuning".
const lookName = (settings) => lookOf(settings)?.name ?? lookWords(settings);
const words = (result) => (result ? settingsWords(result.settings) : "");
