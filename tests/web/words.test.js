import assert from "node:assert/strict";
import { test } from "node:test";

import { bytesWords, fraction, modelWords, rateWords, timeWords } from "../../dloral/studio/web/words.js";

test("slow frames are seconds a frame, fast ones frames a second", () => {
  assert.equal(rateWords(24.4), "24 frames/s");
  assert.equal(rateWords(2.25), "2.3 frames/s");
  assert.equal(rateWords(1 / 13.2), "13 s a frame");
  assert.equal(rateWords(1 / 2.5), "2.5 s a frame");
});

test("times and sizes are said as people say them", () => {
  assert.equal(timeWords(3.2), "4 s");
  assert.equal(timeWords(150), "3 min");
  assert.equal(timeWords(3600 * 2), "2.0 h");
  assert.equal(bytesWords(20), "1 kB");
  assert.equal(bytesWords(3.2e6), "3.2 MB");
});

test("a model is named without its folder", () => {
  assert.equal(modelWords("compact"), "Model: compact (fast)");
  assert.equal(modelWords("/home/ann/models/mine"), "Model: mine");
});

test("a scene's start is an exact fraction", () => {
  assert.equal(fraction("13/10"), 1.3);
  assert.equal(fraction("4"), 4);
});
