// Plays the result: one video that holds both pictures; while it stands still, every exact pixel.

import { pictureFrom } from "./dom.js";
import { RefusedError } from "./link.js";
import { clamp } from "./words.js";

const EXACT_AFTER = 180;  // ms of standing still, before the frame is fetched without loss

export class Player {
  constructor(viewer, video, link) {
    this.viewer = viewer;
    this.video = video;
    this.link = link;
    this.times = [0];
    this.index = 0;
    this.isShown = false;    // whether the viewer shows the result
    this.onFrame = (_index) => {};
    this.onState = (_isPlaying) => {};
    video.loop = true;
    video.addEventListener("play", () => this.state());
    video.addEventListener("pause", () => { this.state(); this.exactSoon(); });
    video.addEventListener("seeked", () => this.sought());
    this.watchFrames();
  }

  // Until the first frame is there this player has no result: there is nothing to step through.
  async load(result) {
    this.unload();
    this.loading = result;
    let picture = null;
    if (result.image) {
      picture = await pictureFrom(await (await fetch(this.link.url(`files/${result.viewer}`))).blob());
    } else {
      this.video.src = this.link.url(`files/${result.viewer}`);
      await new Promise((resolve, reject) => {
        this.video.onloadeddata = resolve;
        this.video.onerror = () => reject(new RefusedError("This browser cannot play the result; you can still download it."));
      });
    }
    if (this.loading !== result) return;  // unloaded meanwhile
    this.result = result;
    this.picture = picture;
    this.times = result.times;
    this.index = 0;
  }

  unload() {
    clearTimeout(this.exactTimer);
    this.exact = this.picture = this.result = this.loading = null;
    this.isSeeking = false;
    this.wanted = undefined;
    this.video.onloadeddata = this.video.onerror = null;
    if (this.video.src) {
      this.video.pause();
      this.video.removeAttribute("src");
      this.video.load();
    }
  }

  get isPlaying() { return Boolean(this.result) && !this.result.image && !this.video.paused; }

  // Show the result in the viewer from now on, or leave that to others.
  shown(isShown) {
    this.isShown = isShown;
    if (!isShown) this.video.pause();
    else { this.present(); this.exactSoon(); }
  }

  present() {
    if (!this.result || !this.isShown) return;
    const { width: fullWidth, height: fullHeight } = this.result;
    const picture = this.exact ?? this.picture ?? this.video;
    const width = picture.videoWidth ?? picture.width, height = (picture.videoHeight ?? picture.height) / 2;
    if (!width) return;
    this.viewer.show({ picture, width, height, fullWidth, fullHeight });
    this.onFrame(this.index);
  }

  play() { if (this.result && !this.result.image) this.video.play(); }
  pause() { this.video.pause(); }
  toggle() { if (this.isPlaying) this.pause(); else this.play(); }

  step(by) { this.pause(); this.seek(this.index + by, true); }

  seek(index, wraps = false) {
    if (!this.result) return;
    const count = this.times.length;
    const wanted = wraps && this.video.loop ? (index + count) % count : clamp(index, 0, count - 1);
    this.wanted = wanted;
    clearTimeout(this.exactTimer);
    if (this.result.image || this.isSeeking) return;
    this.isSeeking = true;
    const end = this.times[wanted + 1] ?? this.result.end;
    this.video.currentTime = (this.times[wanted] + end) / 2;
  }

  sought() {
    this.isSeeking = false;
    if (this.wanted !== undefined && this.wanted !== this.indexAt(this.video.currentTime)) {
      this.seek(this.wanted);
      return;
    }
    this.wanted = undefined;
    this.frame(this.video.currentTime);
    if (this.video.paused) this.exactSoon();
  }

  watchFrames() {
    this.video.requestVideoFrameCallback((now, { mediaTime }) => {
      if (!this.isSeeking) this.frame(mediaTime + 1e-4);
      this.watchFrames();
    });
  }

  frame(time) {
    this.index = this.indexAt(time);
    this.exact = null;
    this.present();
  }

  indexAt(time) {
    let low = 0, high = this.times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.times[middle] <= time + 1e-6) low = middle; else high = middle - 1;
    }
    return low;
  }

  exactSoon() {
    clearTimeout(this.exactTimer);
    if (!this.isShown || this.isPlaying || !this.result || this.exact) return;
    const { result, index } = this;
    this.exactTimer = setTimeout(async () => {
      try {
        const { blob } = await this.link.call("GET", "still", { parameters: { frame: index } });
        const exact = await pictureFrom(blob);
        if (this.result !== result || this.index !== index || this.isPlaying) return;
        this.exact = exact;
        this.present();
      } catch { /* the video's own frame stays */ }
    }, EXACT_AFTER);
  }

  state() { this.onState(this.isPlaying); }
}
