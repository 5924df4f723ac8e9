import assert from "node:assert/strict";
import { test } from "node:test";

import { goesWith } from "../../dloral/studio/web/formats.js";

test("quality and bits are asked for where the format has them", () => {
  assert.deepEqual(goesWith("h264", false), { format: true, crf: true, bits: true });
  assert.deepEqual(goesWith("ffv1", false), { format: true, crf: false, bits: true });
  assert.deepEqual(goesWith("png", false), { format: true, crf: false, bits: true });
  for (const one of ["gif", "webp", "prores"]) assert.deepEqual(goesWith(one, false), { format: true, crf: false, bits: false });
});

test("a still picture is kept as a PNG, whatever a clip would be", () => {
  assert.deepEqual(goesWith("h264", true), { format: false, crf: false, bits: false });
});
