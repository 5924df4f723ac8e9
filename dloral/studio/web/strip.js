// The strip of thumbnails: which part is restored, and where the shown frame lies.

import { find, pictureFrom } from "./dom.js";
import { clamp, partWords } from "./words.js";

export const THUMBNAILS = 12;
const HANDLE = 12;  // CSS pixels, how wide one is

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
    this.root.hidden = !clip || clip.kind !== "video" || clip.frames < 2;
    find("#part").hidden = this.root.hidden;
    this.start = 0;
    this.end = clip?.seconds ?? 0;
    if (this.root.hidden) return;
    this.place();
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    const { blob } = await this.link.call("GET", "thumbnails", { parameters: { count: THUMBNAILS } });
    const picture = await pictureFrom(blob);
    if (this.clip !== clip) return;
    this.canvas.width = picture.width;
    this.canvas.height = picture.height;
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
  }

  // Seconds as the server takes them; no duration: to the end.
  get values() {
    if (!this.clip || this.root.hidden) return { start: 0, duration: null };
    const round = (seconds) => Math.round(seconds * 1000) / 1000;
    const isWhole = this.end >= this.clip.seconds - 0.5 / this.clip.fps;
    return { start: round(this.start), duration: isWhole ? null : round(this.end - this.start) };
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
    return clamp((event.clientX - box.left) / box.width, 0, 1) * this.clip.seconds;
  }

  now(second) { if (this.clip) this.root.style.setProperty("--now", `${100 * clamp(second / this.clip.seconds, 0, 1)}%`); }

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
    this.root.classList.toggle("short", length / seconds * (this.root.clientWidth || 600) < 2 * HANDLE);
    [this.start, this.end].forEach((second, which) => {
      this.root.style.setProperty(which ? "--end" : "--start", `${100 * second / seconds}%`);
      const end = this.ends[which];
      end.setAttribute("aria-valuemin", "0");
      end.setAttribute("aria-valuemax", seconds.toFixed(2));
      end.setAttribute("aria-valuenow", second.toFixed(2));
      end.setAttribute("aria-valuetext", `${second.toFixed(2)} seconds`);
    });
  }
}
