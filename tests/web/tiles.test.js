import assert from "node:assert/strict";
import { test } from "node:test";

import { boxesAround, covers, share } from "../../dloral/studio/web/tiles.js";

const full = { width: 1024, height: 573 };
const first = { x: 320, y: 64, width: 336, height: 192 };

test("the boxes and the first cover the frame and stay in it", () => {
  const boxes = boxesAround(full, first, 8);
  assert.equal(share(full, [first, ...boxes]), 1);
  for (const { x, y, width, height } of boxes) {
    assert.ok(x >= 0 && y >= 0 && x + width <= full.width && y + height <= full.height);
    assert.ok(x % 8 === 0 && y % 8 === 0);
  }
});

test("those near to the first come first", () => {
  const far = ({ x, y, width, height }) => Math.hypot(x + width / 2 - 488, y + height / 2 - 160);
  const distances = boxesAround(full, first, 8).map(far);
  assert.deepEqual(distances, [...distances].sort((a, b) => a - b));
});

test("a first box of the whole frame leaves nothing", () => {
  assert.deepEqual(boxesAround(full, { x: 0, y: 0, ...full }, 8), []);
});

test("a point is covered up to the last pixel of a box", () => {
  assert.ok(covers([first], { x: 320, y: 64 }));
  assert.ok(!covers([first], { x: 656, y: 64 }));
  assert.ok(Math.abs(share(full, [first]) - (336 * 192) / (1024 * 573)) < 0.03);
});
