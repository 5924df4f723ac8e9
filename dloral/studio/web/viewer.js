// Draws before and after from ONE picture that holds both, before above: they cannot drift. Others may
// take the place of either: a pinned look, the result, another result.

import { check, find } from "./dom.js";
import { frameBox, hatched } from "./paint.js";
import { covers } from "./tiles.js";
import { clamp } from "./words.js";

export const MODES = ["wipe", "wipe-h", "side", "flip", "difference", "loupe"];
const MOST_ZOOM = 32;   // times the fitting size
const LOUPE = 4;        // screen pixels for each picture pixel, at least
export const BEFORE = 0, AFTER = 1, PINNED = 2, RESULT = 3, OTHER = 4;
const MARK = 0.5;      // how much of a part that is not restored yet is covered by its mark

export class Viewer {
  constructor(stage) {
    this.stage = stage;
    this.canvas = stage.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.scratch = document.createElement("canvas");
    this.hatch = null;     // the pattern of the mark
    this.veil = document.createElement("canvas");
    // Each half by itself: scaling the whole would mix rows of one into the other where they meet.
    this.halves = [BEFORE, AFTER, PINNED, RESULT, OTHER].map(() => document.createElement("canvas"));
    this.isPinned = false;
    this.pair = [BEFORE, AFTER];
    this.names = ["Before (plain enlargement)", "Restored", "Pinned look", "Result", "Other result"];
    this.handle = find("#handle");
    // {picture, width, height of a half, fullWidth, fullHeight, region, done: boxes that are restored}
    this.source = null;
    this.mode = "wipe";
    this.line = 0.5;      // of the stage, where the wipe is
    this.flipped = 1;      // which of the pair is seen
    this.gain = 8;
    this.strength = 1;    // of the restored half; less: mixed with the bicubic one
    this.spot = { x: 0.5, y: 0.5 };  // of the picture, where the loupe is
    this.onMove = () => {};
    this.fit();
    new ResizeObserver(() => this.resize()).observe(stage);
    this.setMode("wipe");
  }

  fit() { this.zoom = 1; this.centre = { x: 0.5, y: 0.5 }; this.draw(); }

  // What is being computed for the stage; "" for nothing.
  /** @param {string} words */
  busy(words) { this.stage.querySelector("#busy").textContent = words; }

  show(source) {
    const before = this.source;
    this.source = source;
    this.stage.classList.toggle("empty", !source);
    if (source) this.split(source);
    if (source && (!before || before.fullWidth * source.fullHeight !== before.fullHeight * source.fullWidth)) this.fit();
    this.draw();
  }

  split({ picture, width, height }) {
    this.halves.slice(0, PINNED).forEach((canvas, which) => {
      if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
      }
      canvas.getContext("2d", { alpha: false }).drawImage(picture, 0, -which * height, width, 2 * height);
    });
  }

  // The pinned look of the picture that is shown; null: there is none.
  pin(picture) {
    this.isPinned = Boolean(picture);
    if (picture) this.put(PINNED, picture, 0, picture.height);
  }

  // ``height`` rows of a picture from ``top`` on, to be compared with the one that is shown.
  put(which, picture, top, height) {
    const canvas = this.halves[which];
    canvas.width = picture.videoWidth ?? picture.width;
    canvas.height = height;
    canvas.getContext("2d", { alpha: false }).drawImage(picture, 0, -top);
    this.draw();
  }

  setPair(pair) { this.pair = pair; this.draw(); }

  setMode(mode) {
    this.mode = mode;
    this.stage.dataset.mode = mode;
    check(find("#modes"), find(`#modes [data-mode=${mode}]`));
    this.draw();
  }

  setLine(line) { this.line = clamp(line, 0, 1); this.draw(); }

  flip() { this.flipped = 1 - this.flipped; if (this.mode !== "flip") this.setMode("flip"); this.draw(); }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.stage.clientWidth * ratio);
    const height = Math.round(this.stage.clientHeight * ratio);
    if (!width || !height) return;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.draw();
  }

  // Parts of the canvas that each show the whole view: one, or two beside or above each other.
  panes() {
    const { width, height } = this.canvas;
    if (this.mode !== "side" || !this.source) return [{ x: 0, y: 0, width, height }];
    const gap = 2, half = (width - gap) / 2, flat = (height - gap) / 2;
    const { fullWidth, fullHeight } = this.source;
    const beside = Math.min(half / fullWidth, height / fullHeight);
    const above = Math.min(width / fullWidth, flat / fullHeight);
    return width >= height || beside >= above
      ? [{ x: 0, y: 0, width: half, height }, { x: half + gap, y: 0, width: half, height }]
      : [{ x: 0, y: 0, width, height: flat }, { x: 0, y: flat + gap, width, height: flat }];
  }

  // Where the picture lies in a pane: canvas pixels of its corner, and for each picture pixel.
  place(pane) {
    const { fullWidth, fullHeight } = this.source;
    const scale = Math.min(pane.width / fullWidth, pane.height / fullHeight) * this.zoom;
    return {
      scale,
      x: pane.x + pane.width / 2 - this.centre.x * fullWidth * scale,
      y: pane.y + pane.height / 2 - this.centre.y * fullHeight * scale,
    };
  }

  // A point of the stage (CSS pixels) as a point of the picture, 0 to 1 each way.
  pictureAt(x, y) {
    const ratio = this.canvas.width / this.stage.clientWidth;
    const panes = this.panes();
    const pane = panes.find((p) => x * ratio < p.x + p.width && y * ratio < p.y + p.height) ?? panes[0];
    const { scale, x: left, y: top } = this.place(pane);
    return {
      x: (x * ratio - left) / (scale * this.source.fullWidth),
      y: (y * ratio - top) / (scale * this.source.fullHeight),
    };
  }

  zoomAt(x, y, factor) {
    if (!this.source) return;
    const before = this.pictureAt(x, y);
    this.zoom = clamp(this.zoom * factor, this.leastZoom, MOST_ZOOM);
    const after = this.pictureAt(x, y);
    this.centre.x += before.x - after.x;
    this.centre.y += before.y - after.y;
    this.moved();
  }

  // Everything fits at 1; a picture smaller than the stage can also be seen pixel by pixel.
  get oneToOne() { return this.source ? this.zoom / this.place(this.panes()[0]).scale : 1; }
  get leastZoom() { return Math.min(1, this.oneToOne); }
  get fits() { return this.zoom <= 1.001; }

  pan(dx, dy) {
    if (!this.source) return;
    const ratio = this.canvas.width / this.stage.clientWidth;
    const { scale } = this.place(this.panes()[0]);
    this.centre.x -= (dx * ratio) / (scale * this.source.fullWidth);
    this.centre.y -= (dy * ratio) / (scale * this.source.fullHeight);
    this.moved();
  }

  moved() {
    const pane = this.panes()[0];
    const { scale } = this.place(pane);
    for (const [axis, side, full] of [["x", pane.width, this.source.fullWidth], ["y", pane.height, this.source.fullHeight]]) {
      const seen = Math.min(side / (full * scale), 1) / 2;
      this.centre[axis] = clamp(this.centre[axis], seen, 1 - seen);
    }
    this.draw();
    this.onMove();
  }

  // One screen pixel for each pixel of the picture, or all of it.
  toggleFit() {
    if (!this.source) return;
    const one = clamp(this.oneToOne, this.leastZoom, MOST_ZOOM);
    this.zoom = Math.abs(this.zoom - 1) < 0.01 && Math.abs(one - 1) > 0.01 ? one : 1;
    if (this.fits) this.centre = { x: 0.5, y: 0.5 };
    this.moved();
  }

  // To exactly so many screen pixels for each pixel of the picture.
  zoomTo(pixels) {
    if (!this.source) return;
    this.zoom = clamp(this.oneToOne * pixels, this.leastZoom, MOST_ZOOM);
    this.moved();
  }

  // What is seen of the picture: {x, y, width, height}, 0 to 1.
  seen() {
    const pane = this.panes()[0];
    const { scale } = this.place(pane);
    const width = Math.min(pane.width / (scale * this.source.fullWidth), 1);
    const height = Math.min(pane.height / (scale * this.source.fullHeight), 1);
    return { x: this.centre.x - width / 2, y: this.centre.y - height / 2, width, height };
  }

  draw() {
    if (!this.context) return;
    const { context, canvas } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    this.label();
    if (!this.source || !canvas.width) return;
    const panes = this.panes();
    const { width, height } = canvas;
    const [a, b] = this.pair;
    if (this.mode === "side") panes.forEach((pane, which) => this.half(context, this.pair[which], pane, pane));
    else if (this.mode === "flip") this.half(context, this.pair[this.flipped], panes[0], panes[0]);
    else if (this.mode === "difference") this.difference(panes[0]);
    else if (this.mode === "loupe") this.loupe(panes[0]);
    else {
      const across = this.mode === "wipe";
      const cut = Math.round(this.line * (across ? width : height));
      const first = across ? { x: 0, y: 0, width: cut, height } : { x: 0, y: 0, width, height: cut };
      const second = across ? { x: cut, y: 0, width: width - cut, height } : { x: 0, y: cut, width, height: height - cut };
      this.half(context, a, panes[0], first);
      this.half(context, b, panes[0], second);
    }
    if (this.mode !== "loupe") this.outline(panes[this.mode === "side" ? 1 : 0]);
    else this.label();  // which now knows where the loupe is
  }

  // One half of the picture, laid out in ``pane``, where ``clip`` lets it be seen.
  half(context, which, pane, clip) {
    if (clip.width <= 0 || clip.height <= 0) return;
    context.save();
    context.beginPath();
    context.rect(clip.x, clip.y, clip.width, clip.height);
    context.clip();
    this.paint(context, which, this.place(pane));
    context.restore();
  }

  paint(context, which, { x, y, scale }) {
    const { width, fullWidth, fullHeight } = this.source;
    context.imageSmoothingEnabled = scale * fullWidth / width < 3;
    context.imageSmoothingQuality = "high";
    const mixed = this.strength < 1 && which === AFTER;
    const parts = mixed ? [[BEFORE, 1], [AFTER, this.strength]] : [[which, 1]];
    for (const [half, alpha] of parts) {
      context.globalAlpha = alpha;
      context.drawImage(this.halves[half], x, y, fullWidth * scale, fullHeight * scale);
    }
    context.globalAlpha = 1;
    if (which === AFTER || which === PINNED) this.markUnfinished(context, { x, y, scale });
  }

  // What is still the plain enlargement in a picture called restored: hatched, so that nobody
  // takes it for the result.
  markUnfinished(context, { x, y, scale }) {
    const { done, fullWidth, fullHeight } = this.source, { veil, canvas } = this;
    if (!done) return;
    veil.width = canvas.width;
    veil.height = canvas.height;
    const pen = veil.getContext("2d");
    pen.fillStyle = this.hatch ??= hatched(pen);
    pen.fillRect(x, y, fullWidth * scale, fullHeight * scale);
    for (const box of done) pen.clearRect(x + box.x * scale, y + box.y * scale, box.width * scale, box.height * scale);
    context.globalAlpha = MARK;
    context.drawImage(veil, 0, 0);
    context.globalAlpha = 1;
  }

  // Whether the picture is restored at a point of it, 0 to 1 each way.
  isDone({ x, y }) {
    const { done, fullWidth, fullHeight } = this.source;
    return !done || covers(done, { x: x * fullWidth, y: y * fullHeight });
  }

  difference(pane) {
    const { scratch } = this;
    scratch.width = pane.width;
    scratch.height = pane.height;
    const context = scratch.getContext("2d");
    const place = this.place(pane), { done } = this.source;
    this.source.done = null;  // a mark would be a difference
    this.paint(context, this.pair[0], place);
    context.globalCompositeOperation = "difference";
    this.paint(context, this.pair[1], place);
    context.globalCompositeOperation = "lighter";  // adding a picture to itself doubles it
    for (let gain = this.gain; gain > 1; gain /= 2) context.drawImage(scratch, 0, 0);
    context.globalCompositeOperation = "source-over";
    this.source.done = done;
    this.context.drawImage(scratch, pane.x, pane.y);
  }

  // Both enlarged in a corner, away from the place under the pointer, which is marked.
  loupe(pane) {
    const { context, canvas, source } = this;
    this.half(context, this.pair[1], pane, pane);
    const place = this.place(pane), ratio = canvas.width / this.stage.clientWidth;
    const side = Math.round(Math.min(canvas.width * 0.27, canvas.height * 0.46));
    const scale = Math.max(LOUPE * ratio, 2 * place.scale), gap = 4, edge = 10 * ratio;
    const x = place.x + this.spot.x * source.fullWidth * place.scale;
    const y = place.y + this.spot.y * source.fullHeight * place.scale;
    const left = x > canvas.width / 2 ? edge : canvas.width - 2 * side - gap - edge;
    const top = y > canvas.height / 2 ? edge : canvas.height - side - edge;
    this.pair.forEach((half, which) => {
      const box = { x: left + which * (side + gap), y: top, width: side, height: side };
      const at = {
        scale,
        x: box.x + side / 2 - this.spot.x * source.fullWidth * scale,
        y: top + side / 2 - this.spot.y * source.fullHeight * scale,
      };
      context.save();
      context.beginPath();
      context.rect(box.x, top, side, side);
      context.clip();
      context.fillStyle = "#000";
      context.fillRect(box.x, top, side, side);
      this.paint(context, half, at);
      context.restore();
      frameBox(context, box, ratio);
    });
    const seen = side * place.scale / scale;
    frameBox(context, { x: x - seen / 2, y: y - seen / 2, width: seen, height: seen }, ratio);
    this.loupeBox = { x: left, y: top, side };
  }

  // The part that is previewed, where it is not the whole frame.
  outline(pane) {
    const { region, fullWidth, fullHeight } = this.source;
    if (!region || (region.width >= fullWidth && region.height >= fullHeight)) return;
    const { x, y, scale } = this.place(pane);
    const { context } = this;
    context.save();
    context.lineWidth = 1.5 * (window.devicePixelRatio || 1);
    for (const [colour, offset] of [["rgba(0,0,0,.55)", 0], ["rgba(255,255,255,.9)", 5]]) {
      context.strokeStyle = colour;
      context.setLineDash([5, 5]);
      context.lineDashOffset = offset;
      context.strokeRect(x + region.x * scale, y + region.y * scale, region.width * scale, region.height * scale);
    }
    context.restore();
  }

  get pairNames() { return this.pair.map((which) => this.names[which]); }

  label() {
    find("#gain-label").hidden = this.mode !== "difference" || !this.source;
    const wipes = this.mode.startsWith("wipe"), a = find("#tag-a"), b = find("#tag-b");
    const ratio = this.canvas.width / this.stage.clientWidth;
    const upright = this.mode === "wipe-h" || (this.mode === "side" && this.source && this.panes()[1].y > 0);
    this.stage.classList.toggle("upright", upright);
    a.hidden = !this.source || this.mode === "difference" || (this.mode === "flip" && this.flipped !== 0);
    b.hidden = !this.source || (this.mode === "flip" && this.flipped !== 1);
    [a.textContent, b.textContent] = this.pairNames;
    if (this.mode === "difference") b.textContent = "Difference";
    this.handle.hidden = !wipes || !this.source;
    this.handle.style.setProperty("--at", `${100 * this.line}%`);
    const percent = Math.round(100 * this.line);
    this.handle.setAttribute("aria-valuenow", String(percent));
    this.handle.setAttribute("aria-valuetext", `${percent} % ${this.pairNames[0]}`);
    this.handle.setAttribute("aria-orientation", this.mode === "wipe" ? "horizontal" : "vertical");
    for (const tag of [a, b]) tag.style.cssText = "";
    if (this.mode === "side" && this.source) {
      const pane = this.panes()[1];
      if (upright) b.style.top = `${pane.y / ratio + 8}px`;
      else b.style.cssText = `left:${pane.x / ratio + 8}px;right:auto`;
    } else if (this.mode === "loupe" && this.loupeBox) {
      const { x, y, side } = this.loupeBox;
      a.style.cssText = `left:${x / ratio + 8}px;top:${y / ratio + 8}px;right:auto;bottom:auto`;
      b.style.cssText = `left:${(x + side + 4) / ratio + 8}px;top:${y / ratio + 8}px;right:auto;bottom:auto`;
    }
    const { scale } = this.source ? this.place(this.panes()[0]) : { scale: 1 };
    find("#zoom").textContent = this.source ? `${Math.round(100 * scale)} %` : "";
  }
}
