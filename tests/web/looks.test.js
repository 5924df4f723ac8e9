import assert from "node:assert/strict";
import { test } from "node:test";

import { around, LOOKS, lookOf, scaleOf, settingsFor, sizeOf } from "../../dloral/studio/web/looks.js";

const RANGE = [1, 4];

test("every look is found again by its dials, and no two are the same", () => {
  for (const look of LOOKS) assert.equal(lookOf(look.dials), look);
  assert.equal(lookOf({ consistency: 0.33, detail: 1, strength: 1 }), undefined);
});

test("a named size fits the clip into its box, upright clips too", () => {
  assert.equal(scaleOf("1080p", { width: 640, height: 360 }, RANGE), 3);
  assert.equal(scaleOf("1080p", { width: 360, height: 640 }, RANGE), 3);
  assert.equal(scaleOf("1080p", { width: 960, height: 402 }, RANGE), 2);
  assert.equal(scaleOf("4K", { width: 256, height: 144 }, RANGE), null);
  assert.equal(scaleOf("1080p", { width: 3840, height: 2160 }, RANGE), null);
});

test("an enlargement is called by its size", () => {
  const clip = { width: 640, height: 360 };
  assert.equal(sizeOf(3, clip, RANGE), "1080p");
  assert.equal(sizeOf(2, clip, RANGE), "2");
  assert.equal(sizeOf(2.35, clip, RANGE), "own");
});

test("a contact sheet holds the dial in use, in order, within its range", () => {
  for (const now of [0, 0.05, 0.6, 1, 1.35, 2]) {
    const values = around(now, 2);
    assert.equal(values.length, 3);
    assert.ok(values.includes(now));
    assert.deepEqual(values, [...values].sort((a, b) => a - b));
    assert.ok(values[0] >= 0 && values[2] <= 2);
    assert.equal(new Set(values).size, 3);
  }
});

test("settings of one clip are made to suit another", () => {
  const clip = (width, height) => ({ width, height, suggested: { scale: 2 } });
  const chosen = { scale: 3, fit: "1920x1080", detail: 1.4 };
  assert.deepEqual(settingsFor(chosen, "1080p", clip(960, 540), [1, 4]), { scale: 2, fit: "1920x1080", detail: 1.4 });
  assert.deepEqual(settingsFor(chosen, "1080p", clip(540, 960), [1, 4]), { scale: 2, fit: "1080x1920", detail: 1.4 });
  assert.deepEqual(settingsFor(chosen, "1080p", clip(320, 180), [1, 4]), { scale: 4, fit: null, detail: 1.4 });  // out of reach
  assert.deepEqual(settingsFor({ scale: 3, fit: null }, "own", clip(320, 180), [1, 4]), { scale: 3, fit: null });
  assert.deepEqual(settingsFor({ scale: 4, fit: null }, "", clip(1280, 720), [1, 4]), { scale: 2, fit: null });  // nobody chose
});
