// One second of the previewed part, restored and played again and again.

import { disabledWhile, find } from "./dom.js";
import { RefusedError } from "./link.js";

const SIDE = 256;  // pixels; the part is no larger, so that it is there soon

export class Motion {
  constructor(link, viewer, video, { look, onError }) {
    this.link = link;
    this.viewer = viewer;
    this.video = video;
    this.look = look;
    this.onError = onError;
    this.isPlaying = false;
    this.onStop = () => {};
    find("#motion").addEventListener("click", () => this.toggle());
  }

  toggle() { return this.isPlaying ? this.stop() : this.start(); }

  start() { return disabledWhile(find("#motion"), () => this.make()); }

  async make() {
    const { clip, frame, settings, region } = this.look();
    if (!clip || !region) return;
    const button = find("#motion"), own = this.own = {};
    this.viewer.busy("Restoring one second …");
    try {
      const width = Math.min(region.width, SIDE), height = Math.min(region.height, SIDE);
      const box = { x: region.x + (region.width - width >> 1), y: region.y + (region.height - height >> 1), width, height };
      const found = await this.link.call("POST", "motion", { body: { frame, settings: { ...settings, start: 0, duration: null }, ...box } });
      if (found.superseded || this.own !== own) return;
      const [, , w, h] = found.headers.get("x-region").split(" ").map(Number);
      this.address = URL.createObjectURL(found.blob);
      this.video.src = this.address;
      this.video.muted = this.video.loop = true;
      await new Promise((resolve, reject) => {
        this.video.onloadeddata = resolve;
        this.video.onerror = () => reject(new RefusedError("This browser cannot play the preview; you can still restore the clip."));
      });
      if (this.own !== own) return;
      this.isPlaying = true;
      this.size = { width: w, height: h };
      this.seconds = Number(found.headers.get("x-count")) / clip.fps;
      button.textContent = "Back to the frame";
      button.setAttribute("aria-pressed", "true");
      await this.video.play();
      this.draw();
    } catch (error) { this.onError(error); } finally { this.viewer.busy(""); }
  }

  draw() {
    if (!this.isPlaying) return;
    const { width, height } = this.size;
    this.viewer.show({ picture: this.video, width, height, fullWidth: width, fullHeight: height });
    this.video.requestVideoFrameCallback(() => this.draw());
  }

  // Whether it was playing: then whoever asks shows something else now.
  stop() {
    const was = this.isPlaying;
    this.own = null;
    if (!was) return false;
    this.isPlaying = false;
    this.video.onloadeddata = this.video.onerror = null;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    URL.revokeObjectURL(this.address);
    const button = find("#motion");
    button.textContent = "Play 1 s";
    button.setAttribute("aria-pressed", "false");
    this.onStop();
    return true;
  }
}
