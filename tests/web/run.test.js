import assert from "node:assert/strict";
import { test } from "node:test";

// As much of a page as a job's words need: whatever is looked for is there.
const parts = new Map();
const part = (selector) => {
  if (!parts.has(selector)) {
    parts.set(selector, {
      dataset: {}, style: {}, classList: { toggle() {} }, firstElementChild: { style: {} },
      addEventListener() {}, setAttribute() {}, removeAttribute() {}, focus() {},
    });
  }
  return parts.get(selector);
};
globalThis.location = { origin: "", pathname: "" };
globalThis.window = globalThis;
globalThis.document = { title: "DLoRAL", hidden: true, addEventListener() {} };
const { mount } = await import("../../dloral/studio/web/mount.js");
mount({ querySelector: part }, {}, {});
const { Run, startWords } = await import("../../dloral/studio/web/run.js");

const running = { stage: "restoring", halt: "", before: 0, frame: 3, frames: 12, rate: 2, left: null };
const quiet = { onLatest() {}, onEnd() {}, onError() {} };

test("notifications that are refused are said where the run is", () => {
  const run = new Run({}, quiet);
  globalThis.Notification = { permission: "denied" };
  run.show(running);
  assert.equal(part("#untold").hidden, false);
  globalThis.Notification = { permission: "granted" };
  run.show(running);
  assert.equal(part("#untold").hidden, true);
});

test("the end is told by the title where notifications are refused, or throw", () => {
  const ended = [];
  const run = new Run({}, { ...quiet, onEnd: (state) => ended.push(state) });
  const state = { result: { clip: "bar.mp4", part: false } };
  globalThis.Notification = { permission: "denied" };
  run.ended(state);
  globalThis.Notification = class { static permission = "granted"; constructor() { throw new TypeError("service workers alone"); } };
  run.ended(state);
  assert.equal(document.title, "Done: DLoRAL");
  assert.equal(part("#announce").textContent, "bar.mp4 is restored");
  assert.equal(ended.length, 2);
});

test("what a press makes is said where it is pressed", () => {
  assert.equal(startWords({ duration: null }), "Restore");
  assert.equal(startWords({ duration: 5 }), "Restore these 5 s");
  const run = new Run({}, quiet), dials = { scale: 2, detail: 1, duration: 5 };
  run.compare(dials, { settings: dials, part: false });
  assert.equal(part("#run").textContent, "Restore again");
  run.compare({ ...dials, detail: 0.5 }, { settings: dials, part: false });
  assert.equal(part("#run").textContent, "Restore these 5 s");
  const made = { ...dials, tile: null, deinterlace: "auto", prompt: "" };
  for (const [other, words] of [[{}, "Restore again"], [{ tile: "none" }, "Restore again"], [{ tile: 32 }, "Restore these 5 s"],
    [{ deinterlace: "off" }, "Restore these 5 s"], [{ prompt: "a cat" }, "Restore these 5 s"],
    [{ scenes: [{ start: "0", prompt: "a cat" }] }, "Restore these 5 s"]]) {
    run.compare({ ...dials, ...other }, { settings: made, part: false });
    assert.equal(part("#run").textContent, words, JSON.stringify(other));
  }
  const scenes = [{ start: "0", prompt: "a cat" }];
  run.compare({ ...dials, scenes: structuredClone(scenes) }, { settings: { ...made, scenes }, part: false });
  assert.equal(part("#run").textContent, "Restore again");
  run.compare(dials, { settings: dials, part: true });  // it was stopped before its end
  assert.equal(part("#run").textContent, "Restore these 5 s");
});
