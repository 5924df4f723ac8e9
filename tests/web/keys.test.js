import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.document = { body: {} };
const { takesKeys } = await import("../../dloral/studio/web/gestures.js");

// An element that one of ``matching`` selects, within the page.
const target = (...matching) => ({ closest: (selector) => (selector === ".studio" || matching.some((one) => selector.includes(one)) ? {} : null) });

test("text and lists of choices take every key", () => {
  for (const key of ["x", "1", "ArrowLeft"]) assert.ok(takesKeys({ target: target("textarea"), key }));
});

test("a dial takes the keys that move it, and the viewer the rest", () => {
  const dial = target("input[type=range]");
  for (const key of ["ArrowLeft", "PageUp", "Home", "End"]) assert.ok(takesKeys({ target: dial, key }));
  for (const key of ["x", "p", "1", " ", "+"]) assert.ok(!takesKeys({ target: dial, key }));
});

test("a button takes Space and Enter, and the viewer the rest", () => {
  const button = target("button");
  for (const key of [" ", "Enter"]) assert.ok(takesKeys({ target: button, key }));
  for (const key of ["x", "ArrowLeft", "0"]) assert.ok(!takesKeys({ target: button, key }));
});
