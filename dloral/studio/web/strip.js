// The strip of thumbnails: which part is restored, and where the shown frame lies.

import { find, pictureFrom } from "./dom.js";
import { clamp, partOf, partWords } from "./words.js";

export const THUMBNAILS = 12;
const HANDLE = 12;  // CSS pixels, how wide one is
const MARGIN = 0.25;       // of a part, that is shown to either side of it
const LEAST_FRAMES = 24;   // that the strip shows when it is zoomed as far as it goes
const LOOK_AFTER = 250;    // ms after the last move of the wheel

export class Strip {
  constructor(link, { onTrim, onSeek }) {
    this.link = link;
    this.root = find("#strip");
    this.canvas = this.root.querySelector("canvas");
    this.ends = [find("#trim-start"), find("#trim-end")];
    this.onTrim = onTrim;
    this.onSeek = onSeek;
    this.ends.forEach((end, which) => {
      end.addEventListener("pointerdown", (event) => { event.stopPropagation(); end.setPointerCapture(event.pointerId); });
      end.addEventListener("pointermove", (event) => { if (end.hasPointerCapture(event.pointerId)) this.trim(which, this.secondAt(event)); });
      end.addEventListener("keydown", (event) => this.key(event, which));
    });
    this.numbers = [find("#part-start"), find("#part-end")];
    this.numbers.forEach((number, which) => number.addEventListener("change", () => {
      if (number.value !== "" && Number.isFinite(Number(number.value))) this.trim(which, Number(number.value));
      else this.place();
    }));
    find("#part-all").addEventListener("click", () => { this.set({}); this.onTrim(0); });
    find("#part-zoom").addEventListener("click", () => this.toggleZoom());
    this.root.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;  // the page scrolls; pinching says Ctrl, too
      event.preventDefault();
      this.zoomAt(this.secondAt(event), Math.exp(event.deltaY * 0.002));
    }, { passive: false });
    this.root.addEventListener("pointerdown", (event) => {
      this.root.setPointerCapture(event.pointerId);
      this.onSeek(this.secondAt(event));
    });
    this.root.addEventListener("pointermove", (event) => {
      if (this.root.hasPointerCapture(event.pointerId)) this.onSeek(this.secondAt(event));
    });
  }

  async open(clip) {
    this.clip = clip;
    this.root.hidden = !clip || clip.kind === "image" || clip.frames < 2;
    find("#part").hidden = this.root.hidden;
    this.start = 0;
    this.end = clip?.seconds ?? 0;
    this.from = 0;             // what the strip shows
    this.to = this.end;
    if (this.root.hidden) return;
    this.place();
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    await this.look();
  }

  // Thumbnails of what the strip shows.
  async look() {
    const { clip, from, to } = this;
    const { blob } = await this.link.call("GET", "thumbnails", { parameters: { count: THUMBNAILS, start: from, duration: to - from } });
    const picture = await pictureFrom(blob);
    if (this.clip !== clip || this.from !== from || this.to !== to) return;
    this.canvas.width = picture.width;
    this.canvas.height = picture.height;
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
  }

  get isZoomed() { return this.to - this.from < this.clip.seconds - 1e-6; }

  show(from, to) {
    const { seconds } = this.clip, length = clamp(to - from, Math.min(LEAST_FRAMES / this.clip.fps, seconds), seconds);
    this.from = clamp(from, 0, seconds - length);
    this.to = this.from + length;
    this.place();
    clearTimeout(this.lookTimer);
    this.lookTimer = setTimeout(() => this.look().catch(() => {}), LOOK_AFTER);
  }

  // The strip is as long as the part and a margin; or the whole clip again.
  toggleZoom() {
    const margin = MARGIN * (this.end - this.start);
    if (this.isZoomed) this.show(0, this.clip.seconds); else this.show(this.start - margin, this.end + margin);
  }

  // ``second`` stays where it is.
  zoomAt(second, factor) {
    if (this.clip) this.show(second - (second - this.from) * factor, second + (this.to - second) * factor);
  }

  // Seconds as the server takes them; no duration: to the end.
  get values() {
    if (!this.clip || this.root.hidden) return { start: 0, duration: null };
    const isWhole = this.end >= this.clip.seconds - 0.5 / this.clip.fps, { start, duration } = partOf(this.start, this.end);
    return { start, duration: isWhole ? null : duration };
  }

  set({ start = 0, duration = null }) {
    if (!this.clip) return;
    this.start = clamp(start, 0, this.clip.seconds);
    this.end = duration === null ? this.clip.seconds : clamp(this.start + duration, 0, this.clip.seconds);
    this.place();
  }

  // On whole frames, at least one of them.
  trim(which, second) {
    const frame = 1 / this.clip.fps, snapped = Math.round(second / frame) * frame;
    if (which === 0) this.start = clamp(snapped, 0, this.end - frame);
    else this.end = clamp(snapped, this.start + frame, this.clip.seconds);
    this.place();
    this.onTrim(which === 0 ? this.start : this.end - frame);
  }

  key(event, which) {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.trim(which, (which ? this.end : this.start) + by / this.clip.fps);
  }

  secondAt(event) {
    const box = this.root.getBoundingClientRect();
    return this.from + clamp((event.clientX - box.left) / box.width, 0, 1) * (this.to - this.from);
  }

  // Where a second lies on the strip, 0 to 1; beyond that it is not seen.
  at(second) { return (second - this.from) / Math.max(this.to - this.from, 1e-9); }

  now(second) {
    if (!this.clip) return;
    this.second = second;
    const at = this.at(second), mark = this.root.querySelector(".now");
    this.root.style.setProperty("--now", `${100 * clamp(at, 0, 1)}%`);
    mark.hidden = at < 0 || at > 1;
  }

  place() {
    const { seconds } = this.clip, length = this.end - this.start, isWhole = length >= seconds - 0.5 / this.clip.fps;
    this.numbers.forEach((number, which) => {
      number.value = String(Math.round((which ? this.end : this.start) * 100) / 100);
      number.max = seconds.toFixed(2);
      number.step = "any";
    });
    find("#part-words").textContent = isWhole ? "the whole clip" : `${partWords(length)} of ${partWords(seconds)} will be restored`;
    find("#part-all").hidden = isWhole;
    // Handles of a short part stand beside it, never on each other.
    this.root.classList.toggle("short", length / (this.to - this.from) * (this.root.clientWidth || 600) < 2 * HANDLE);
    const zoom = find("#part-zoom");
    zoom.hidden = !this.isZoomed && length > seconds / 2;
    zoom.textContent = this.isZoomed ? "Zoom out" : "Zoom in";
    zoom.setAttribute("aria-pressed", String(this.isZoomed));
    this.now(this.second ?? 0);
    [this.start, this.end].forEach((second, which) => {
      const at = this.at(second), end = this.ends[which];
      this.root.style.setProperty(which ? "--end" : "--start", `${100 * clamp(at, 0, 1)}%`);
      end.hidden = at < -1e-6 || at > 1 + 1e-6;
      end.setAttribute("aria-valuemin", "0");
      end.setAttribute("aria-valuemax", seconds.toFixed(2));
      end.setAttribute("aria-valuenow", second.toFixed(2));
      end.setAttribute("aria-valuetext", `${second.toFixed(2)} seconds`);
    });
  }
}
