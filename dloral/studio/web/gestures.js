// Pointer, wheel and keys on the viewer.

import { find } from "./dom.js";
import { MODES } from "./viewer.js";
import { clamp } from "./words.js";

const KEYS = [
  ["← →", "previous or next frame"], ["Space", "play or pause"], ["Home, End", "first, last frame"],
  ["1 to 6", "wipe, wipe up and down, side by side, A/B, difference, loupe"], ["X", "switch pictures (A/B)"],
  ["[ ]", "move the wipe line; arrow keys do, too, when it has the focus"],
  ["+ −", "zoom; also wheel or pinch"], ["0", "fit or actual size"], ["Shift 1 2 4", "1, 2 or 4 screen pixels per pixel"],
  ["P", "pin this look to compare others with it"], ["S", "save this frame as shown"],
  ["Shift and arrows", "pan, or move the loupe"], ["F", "full screen"], ["L", "loop"], ["M", "sound"], ["?", "this list"],
];
const MOVING = /^(Arrow|Page|Home$|End$)/;
const CLICK = 4;            // CSS pixels; a press that moves less is no drag
const EXACT = { Digit1: 1, Digit2: 2, Digit4: 4 };
const HANDLE_REACH = 14;  // CSS pixels to either side of the line, where it is grasped

export class Gestures {
  // ``acts``: what the transport's keys do, by name.
  constructor(viewer, acts) {
    this.viewer = viewer;
    this.acts = acts;
    this.pointers = new Map();
    const { stage } = viewer;
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.up(event));
    stage.addEventListener("dblclick", (event) => { if (event.target !== viewer.handle) viewer.toggleFit(); });
    // Also where nothing has the focus, so that keys work right after a press on the page.
    document.addEventListener("keydown", (event) => {
      if (!takesKeys(event)) this.key(event);
    });
    find("#help dl").replaceChildren(...KEYS.flatMap(([keys, what]) => {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = keys;
      dd.textContent = what;
      return [dt, dd];
    }));
  }

  at(event) {
    const box = this.viewer.stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top, width: box.width, height: box.height };
  }

  nearLine({ x, y, width, height }) {
    const { mode, line } = this.viewer;
    if (mode === "wipe") return Math.abs(x - line * width) < HANDLE_REACH;
    return mode === "wipe-h" && Math.abs(y - line * height) < HANDLE_REACH;
  }

  wheel(event) {
    if (!this.viewer.source) return;
    event.preventDefault();
    const { x, y } = this.at(event);
    this.viewer.zoomAt(x, y, Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)));
  }

  down(event) {
    if (!this.viewer.source || event.button > 0 || event.target.closest("select, button")) return;
    const at = this.at(event);
    this.pointers.set(event.pointerId, at);
    this.viewer.stage.setPointerCapture(event.pointerId);
    // Where all of the picture is seen there is nothing to pan, so the line comes to the pointer.
    const wipes = this.viewer.mode.startsWith("wipe");
    this.wiping = wipes && this.pointers.size === 1 && (this.nearLine(at) || this.viewer.fits);
    this.pressed = this.pointers.size === 1 ? at : null;
    if (this.wiping && this.nearLine(at)) this.wipeTo(at);
    this.spread = null;
  }

  move(event) {
    const at = this.at(event), { viewer } = this;
    if (viewer.mode === "loupe" && viewer.source && !this.pointers.size) this.look(at);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      const near = this.nearLine(at);
      viewer.stage.style.cursor = near ? (viewer.mode === "wipe" ? "ew-resize" : "ns-resize") : "";
      return;
    }
    if (this.pressed && Math.hypot(at.x - this.pressed.x, at.y - this.pressed.y) < CLICK) return;
    this.pressed = null;
    this.pointers.set(event.pointerId, at);
    if (this.pointers.size === 2) this.pinch();
    else if (this.wiping) this.wipeTo(at);
    else if (viewer.mode === "loupe" && viewer.fits) this.look(at);
    else viewer.pan(at.x - before.x, at.y - before.y);
  }

  up(event) {
    // A press without a move goes to what it points at: a part that is not restored yet, or the line.
    const { pressed, viewer } = this;
    if (pressed && event.type === "pointerup" && this.pointers.has(event.pointerId) && viewer.source && !this.nearLine(pressed)) {
      const spot = viewer.pictureAt(pressed.x, pressed.y);
      if (!viewer.isDone(spot) && spot.x >= 0 && spot.x <= 1 && spot.y >= 0 && spot.y <= 1) this.acts.restoreAt(spot);
      else if (this.wiping) this.wipeTo(pressed);
    }
    this.pressed = null;
    this.pointers.delete(event.pointerId);
    this.spread = null;
    if (!this.pointers.size) this.wiping = false;
  }

  wipeTo({ x, y, width, height }) {
    this.viewer.setLine(this.viewer.mode === "wipe" ? x / width : y / height);
  }

  look({ x, y }) {
    const spot = this.viewer.pictureAt(x, y);
    this.viewer.spot = { x: clamp(spot.x, 0, 1), y: clamp(spot.y, 0, 1) };
    this.viewer.draw();
  }

  pinch() {
    this.wiping = false;
    const [a, b] = [...this.pointers.values()];
    const now = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
    if (this.spread) {
      this.viewer.pan(now.x - this.spread.x, now.y - this.spread.y);
      this.viewer.zoomAt(now.x, now.y, now.apart / Math.max(this.spread.apart, 1));
    }
    this.spread = now;
  }

  key(event) {
    if (event.altKey || event.metaKey || event.ctrlKey || event.target.tagName === "SELECT") return;
    const { viewer } = this, { key } = event;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const number = Number(key), exact = event.shiftKey ? EXACT[event.code] : undefined;
    if (arrows[key] && event.target === viewer.handle && !event.shiftKey) {
      const [x, y] = arrows[key];
      viewer.setLine(viewer.line + 0.02 * (x + y));
    } else if (arrows[key] && event.shiftKey) this.shift(...arrows[key]);
    else if (exact) viewer.zoomTo(exact);
    else if (key === "ArrowLeft") this.acts.step(-1);
    else if (key === "ArrowRight") this.acts.step(1);
    else if (key === "Home") this.acts.seek(0);
    else if (key === "End") this.acts.seek(Infinity);
    else if (key === " ") this.acts.play();
    else if (number >= 1 && number <= MODES.length) viewer.setMode(MODES[number - 1]);
    else if (key === "x" || key === "X") viewer.flip();
    else if (key === "[") viewer.setLine(viewer.line - 0.02);
    else if (key === "]") viewer.setLine(viewer.line + 0.02);
    else if (key === "+" || key === "=") this.zoom(1.25);
    else if (key === "-") this.zoom(0.8);
    else if (key === "0") viewer.toggleFit();
    else if (key === "p" || key === "P") this.acts.pin();
    else if (key === "s" || key === "S") this.acts.save();
    else if (key === "f" || key === "F") this.acts.full();
    else if (key === "l" || key === "L") this.acts.loop();
    else if (key === "m" || key === "M") this.acts.sound();
    else if (key === "?") this.acts.help();
    else return;
    event.preventDefault();
  }

  zoom(factor) {
    const { clientWidth, clientHeight } = this.viewer.stage;
    this.viewer.zoomAt(clientWidth / 2, clientHeight / 2, factor);
  }

  shift(x, y) {
    const { viewer } = this;
    if (viewer.mode === "loupe") {
      viewer.spot = { x: clamp(viewer.spot.x + 0.02 * x, 0, 1), y: clamp(viewer.spot.y + 0.02 * y, 0, 1) };
      viewer.draw();
    } else viewer.pan(-40 * x, -40 * y);
  }
}

// Whether a key belongs to what has the focus: text, a list of choices; of a dial, the pad or a handle
// those that move it. A button takes Space and Enter alone. So the viewer's keys work after a press
// on any button, and while a dial is moved.
/** @param {any} event */
export const takesKeys = ({ target, key }) => {
  if (target.closest("dialog, input:not([type=checkbox], [type=file], [type=range]), textarea, select")) return true;
  if (target.closest("input[type=range], #pad, #strip [role=slider], #plot")) return MOVING.test(key);
  const isButton = target.closest("button, a, summary, label, input:not([type=range])");
  if (!isButton) return !(target === document.body || target.closest(".studio"));
  return key === " " || key === "Enter" || (key.startsWith("Arrow") && target.closest("[role=radio]"));
};
