import assert from "node:assert/strict";
import { test } from "node:test";

import { bytesWords, fraction, longWords, modelWords, partOf, partWords, rangeWords, rateWords, timeWords } from "../../dloral/studio/web/words.js";

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

test("the length of a part is that of the clip's facts, not rounded up as a wait is", () => {
  assert.equal(partWords(10.01), "10 s");
  assert.equal(partWords(2.708), "2.71 s");
  assert.equal(partWords(99.4), "99 s");
  assert.equal(partWords(150), "3 min");
});

test("a time that is known no better is a range", () => {
  assert.equal(rangeWords(38, 42), "about 40 s");
  assert.equal(rangeWords(38.2, 71), "40 to 70 s");
  assert.equal(rangeWords(100, 260), "2 to 4 min");
  assert.equal(rangeWords(11.6, 17.8), "12 to 18 s");
  assert.equal(rangeWords(40, 130), "60 s to 2 min");
  assert.equal(rangeWords(0.2, 2), "about 2 s");
});

test("a model is named without its folder", () => {
  assert.equal(modelWords("compact"), "Model: compact (fast)");
  assert.equal(modelWords("/home/ann/models/mine"), "Model: mine");
});

test("a scene's start is an exact fraction", () => {
  assert.equal(fraction("13/10"), 1.3);
  assert.equal(fraction("4"), 4);
});

test("a part holds the frames between its ends, no more and no less", () => {
  for (const fps of [10, 15, 24, 24000 / 1001, 25, 30000 / 1001, 30, 50, 60]) {
    for (let from = 0; from < 40; from += 3) {
      for (const count of [1, 2, 7, 19]) {
        const { start, duration } = partOf(from / fps, (from + count) / fps);
        const held = [...Array(80).keys()].filter((frame) => frame / fps >= start - 1e-9 && frame / fps < start + duration - 1e-9);  // decimals, to the server
        assert.deepEqual(held, [...Array(count).keys()].map((frame) => from + frame), `${count} from ${from} at ${fps}`);
      }
    }
  }
});

test("how long a result is kept is said in whole hours, or days", () => {
  assert.equal(longWords(3600 * 6), "6 hours");
  assert.equal(longWords(3600), "1 hour");
  assert.equal(longWords(7200), "2 hours");
  assert.equal(longWords(86_400 * 3), "3 days");
  assert.equal(longWords(30), "1 minute");
});
