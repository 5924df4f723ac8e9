// The live preview: the busiest part of one frame at once, the rest while nothing else is wanted.

import { pictureFrom } from "./dom.js";
import { LostError } from "./link.js";
import { element } from "./mount.js";
import { boxesAround, covers, share } from "./tiles.js";

const STRIDE = 8;             // pixels; the cells of the model's latents
const MOST_CANVAS = 4096;     // pixels a side
const FILL_AFTER = 350;       // ms without a wish, before the rest of the frame is restored

/** @typedef {{clip: any, frame: number, settings: any}} Wish */

// One preview at a time is asked for; of the moves meanwhile only the newest counts.
export class Preview {
  constructor(link, viewer) {
    this.link = link;
    this.viewer = viewer;
    this.pixels = 0;      // of the previewed part; 0: what the server finds lively
    this.count = 0;       // of renderings shown, for whoever waits for the next
    this.isShown = true;
    this.mayFill = () => true;
    this.pinned = null;   // {settings, strength}: the look to compare with
    this.onError = (_error) => {};
    this.onShare = (_share) => {};
    this.forget();
  }

  forget() {
    /** @type {Wish | null} */
    this.wanted = null;
    this.drawn = this.canvas = this.region = this.centre = this.last = this.pinnedCanvas = null;
    this.done = [];
    this.generation = (this.generation ?? 0) + 1;
    clearTimeout(this.fillTimer);
  }

  // ``clip`` {width, height}, frame number, and settings as the server takes them.
  want(clip, frame, settings) {
    this.wanted = { clip, frame, settings };
    this.wish = (this.wish ?? 0) + 1;
    clearTimeout(this.fillTimer);
    if (!this.running) this.running = this.run().finally(() => { this.running = null; this.fillSoon(); });
    return this.running;
  }

  async run() {
    this.viewer.busy("Restoring this part …");
    try {
      while (this.wanted) {
        const { wanted, generation } = this;
        this.wanted = null;
        const grows = await this.make(wanted, generation);
        if (grows && !this.wanted && generation === this.generation) this.wanted = wanted;
      }
    } catch (error) {
      if (!(error instanceof LostError)) this.onError(error);
    } finally {
      this.viewer.busy("");
    }
  }

  /** @param {Wish} wish */
  async make(wish, generation) {
    const { clip, frame, settings } = wish;
    const size = { width: Math.max(1, Math.round(clip.width * settings.scale)), height: Math.max(1, Math.round(clip.height * settings.scale)) };
    const key = `${frame} ${settings.scale} ${settings.deinterlace}`;
    if (this.drawn !== key) await this.background(key, frame, settings, size, generation);
    const found = await this.link.call("POST", "preview", {
      body: { frame, settings: ofFrame(settings), pixels: this.pixels, ...(this.centre ?? { busiest: true }) },
    });
    if (generation !== this.generation || found.superseded) return false;
    const region = boxFrom(found.headers.get("x-region"));
    const place = `${key} ${region.x} ${region.y} ${region.width} ${region.height}`;
    const isNew = this.region?.key !== place;
    const [restored, bicubic] = await Promise.all([
      pictureFrom(found.blob),
      isNew ? this.bicubic(frame, settings, region) : null,
    ]);
    if (generation !== this.generation) return false;
    this.region = { ...region, key: place };
    this.centre ??= { x: (region.x + region.width / 2) / size.width, y: (region.y + region.height / 2) / size.height };
    this.done = [region];
    this.last = wish;
    this.paste(restored, bicubic, region);
    this.seconds = Number(found.headers.get("x-seconds"));
    if (this.pinned) await this.makePinned(wish, region, generation);
    this.count += 1;
    element.dataset.previews = String(this.count);
    this.say();
    return !this.pixels && found.headers.get("x-could-grow") === "1";  // of an asked size it would, again and again
  }

  async background(key, frame, { scale, deinterlace }, size, generation) {
    const { blob } = await this.link.call("GET", "background", { parameters: { frame, scale, deinterlace } });
    const picture = await pictureFrom(blob);
    if (generation !== this.generation) return;
    const ratio = Math.min(1, MOST_CANVAS / size.width, MOST_CANVAS / size.height);
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(size.width * ratio));
    canvas.height = 2 * Math.max(1, Math.round(size.height * ratio));
    const context = canvas.getContext("2d");
    for (const half of [0, 1]) context.drawImage(picture, 0, half * canvas.height / 2, canvas.width, canvas.height / 2);
    if (this.drawn && this.drawn.split(" ")[0] !== String(frame)) this.centre = null;
    this.canvas = canvas;
    this.full = size;
    this.drawn = key;
    this.region = null;
    this.done = [];
    this.present();
  }

  async bicubic(frame, { scale, deinterlace }, { x, y, width, height }) {
    const { blob } = await this.link.call("GET", "bicubic", { parameters: { frame, scale, deinterlace, x, y, width, height } });
    return pictureFrom(blob);
  }

  // ``bicubic``: null where it is there already.
  paste(restored, bicubic, box) {
    const context = this.canvas.getContext("2d"), half = this.canvas.height / 2;
    const at = this.onCanvas(box);
    if (bicubic) context.drawImage(bicubic, at.x, at.y, at.width, at.height);
    context.drawImage(restored, at.x, at.y + half, at.width, at.height);
    this.present();
  }

  onCanvas({ x, y, width, height }) {
    const ratio = this.canvas.width / this.full.width;
    return { x: x * ratio, y: y * ratio, width: width * ratio, height: height * ratio };
  }

  present() {
    if (!this.isShown || !this.canvas) return;
    this.viewer.show({
      picture: this.canvas, width: this.canvas.width, height: this.canvas.height / 2,
      fullWidth: this.full.width, fullHeight: this.full.height, region: this.region, done: this.isWhole ? null : this.done,
    });
  }

  get isWhole() { return Boolean(this.full) && share(this.full, this.done) > 0.9999; }

  say() { this.onShare(this.full ? share(this.full, this.done) : 0); }

  shown(isShown) { this.isShown = isShown; this.present(); if (isShown) this.fillSoon(); }

  // The rest of the frame ---------------------------------------------------------------------

  fillSoon() {
    clearTimeout(this.fillTimer);
    if (this.last && !this.isWhole) this.fillTimer = setTimeout(() => this.fill(), FILL_AFTER);
  }

  async fill() {
    const { last, region, generation, wish } = this;
    if (!last || !region || this.filling) return;
    this.filling = true;
    const isWanted = () => this.isShown && !this.wanted && !this.running && this.wish === wish && generation === this.generation && this.mayFill();
    try {
      for (const box of boxesAround(this.full, region, STRIDE)) {
        if (!isWanted()) return;
        if (isCovered(this.done, box)) continue;
        this.viewer.busy("Restoring the rest …");
        const found = await this.link.call("POST", "fill", { body: { frame: last.frame, settings: ofFrame(last.settings), ...box } });
        if (found.superseded || !isWanted()) return;
        const restored = await pictureFrom(found.blob);
        const bicubic = await this.bicubic(last.frame, last.settings, box);
        if (this.pinned) await this.fillPinned(last, box);
        if (!isWanted()) return;
        this.done.push(box);
        this.paste(restored, bicubic, box);
        this.say();
      }
    } catch (error) {
      if (!(error instanceof LostError)) this.onError(error);
    } finally {
      this.filling = false;
      if (!this.running) this.viewer.busy("");
      if (this.wish !== wish && !this.running) this.fillSoon();
    }
  }

  // The pinned look ---------------------------------------------------------------------------

  // ``look``: {settings, strength}, or null for none.
  async pin(look) {
    this.pinned = look;
    this.pinnedCanvas = null;
    this.viewer.pin(null);
    if (!look || !this.last || !this.region) return;
    const half = this.canvas.height / 2, copy = this.ownPinned();
    // It is what is seen now: nothing has to be computed.
    const context = copy.getContext("2d");
    context.drawImage(this.canvas, 0, 0, copy.width, half, 0, 0, copy.width, half);
    context.globalAlpha = look.strength;
    context.drawImage(this.canvas, 0, half, copy.width, half, 0, 0, copy.width, half);
    context.globalAlpha = 1;
    this.pinnedKey = this.pinKey(this.last, this.region);
    this.viewer.pin(copy);
  }

  ownPinned() {
    const half = this.canvas.height / 2;
    if (!this.pinnedCanvas || this.pinnedCanvas.width !== this.canvas.width || this.pinnedCanvas.height !== half) {
      this.pinnedCanvas = document.createElement("canvas");
      this.pinnedCanvas.width = this.canvas.width;
      this.pinnedCanvas.height = half;
    }
    return this.pinnedCanvas;
  }

  pinKey({ frame, settings }, region) {
    return JSON.stringify([frame, settings.scale, settings.deinterlace, settings.window, settings.prompt, settings.color_fix, region.x, region.y, region.width, region.height]);
  }

  async makePinned(wish, region, generation) {
    const key = this.pinKey(wish, region);
    if (this.pinnedKey === key && this.pinnedCanvas) return;
    const settings = { ...wish.settings, ...this.pinned.settings };
    const found = await this.link.call("POST", "preview", {
      body: { frame: wish.frame, settings: ofFrame(settings), pixels: region.width * region.height, ...this.centre },
    });
    if (generation !== this.generation || found.superseded || !this.pinned) return;
    const picture = await pictureFrom(found.blob), at = this.onCanvas(boxFrom(found.headers.get("x-region")));
    const canvas = this.ownPinned(), context = canvas.getContext("2d");
    context.drawImage(this.canvas, 0, 0, canvas.width, canvas.height, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = this.pinned.strength;
    context.drawImage(picture, at.x, at.y, at.width, at.height);
    context.globalAlpha = 1;
    this.pinnedKey = key;
    this.viewer.pin(canvas);
  }

  async fillPinned(last, box) {
    const settings = { ...last.settings, ...this.pinned.settings };
    const found = await this.link.call("POST", "fill", { body: { frame: last.frame, settings: ofFrame(settings), ...box } });
    if (found.superseded || !this.pinned) return;
    const picture = await pictureFrom(found.blob), at = this.onCanvas(box);
    const context = this.ownPinned().getContext("2d");
    context.globalAlpha = this.pinned.strength;
    context.drawImage(picture, at.x, at.y, at.width, at.height);
    context.globalAlpha = 1;
    this.viewer.pin(this.pinnedCanvas);
  }

  // Where -------------------------------------------------------------------------------------

  // The part that is restored first moves to a point, 0 to 1 each way.
  moveTo(point) { this.centre = point; }

  // The viewer looks elsewhere: whether the previewed part should follow.
  follow(seen) {
    const { full, done } = this;
    if (!this.region || !full || this.isWhole) return false;
    const middle = { x: seen.x + seen.width / 2, y: seen.y + seen.height / 2 };
    if (covers(done, { x: middle.x * full.width, y: middle.y * full.height })) return false;
    this.centre = middle;
    return true;
  }
}

// For one frame alone: which part of the clip is restored is no matter.
const ofFrame = (settings) => ({ ...settings, start: 0, duration: null });

/** @param {string} words */
const boxFrom = (words) => {
  const [x, y, width, height] = words.split(" ").map(Number);
  return { x, y, width, height };
};

const isCovered = (done, box) => [0.01, 0.5, 0.99].every((across) => [0.01, 0.5, 0.99].every((down) =>
  covers(done, { x: box.x + across * box.width, y: box.y + down * box.height })));
