import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

const storage = () => {
  const kept = new Map();
  return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => { kept.set(key, String(value)); } };
};
const { mount } = await import("../../dloral/studio/web/mount.js");
const { hold, letGo, remember, visits } = await import("../../dloral/studio/web/visits.js");

const MOST = 200;
beforeEach(() => {
  globalThis.localStorage = storage();
  globalThis.sessionStorage = storage();
  mount(/** @type {any} */ ({}), /** @type {any} */ ({}), /** @type {any} */ ({ mostVisits: MOST }));
});
const tokens = () => visits().map(({ token }) => token);

test("every file of a long queue keeps its key", () => {
  hold("own", "first.mp4");
  for (let index = 0; index < 100; index += 1) remember(`t${index}`, `file${index}.mp4`);
  assert.equal(visits().length, 101);
  assert.ok(tokens().includes("t0"));
});

test("of too many visits those with a job stay, and so does what a tab shows", () => {
  for (let index = 0; index < 100; index += 1) remember(`job${index}`, `file${index}.mp4`);
  hold("shown", "");
  for (let index = 0; index < 150; index += 1) {
    hold(`clip${index}`, `clip${index}.mp4`);
    hold(`empty${index}`, "");
    letGo(`clip${index}`);
    letGo(`empty${index}`);
  }
  const kept = tokens();
  assert.equal(kept.length, MOST);
  assert.ok(kept.includes("shown"));
  assert.equal(kept.filter((token) => token.startsWith("job")).length, 100);
  assert.equal(kept.filter((token) => token.startsWith("clip")).length, 98);  // the newest of them
  assert.ok(kept.includes("clip149") && !kept.includes("clip0"));
});

test("a visit whose job began stays before those that have none", () => {
  hold("mine", "mine.mp4");
  hold("mine", undefined, true);
  letGo("mine");
  for (let index = 0; index < 2 * MOST; index += 1) { hold(`t${index}`, `t${index}.mp4`); letGo(`t${index}`); }
  assert.ok(tokens().includes("mine"));
  assert.equal(visits().find(({ token }) => token === "mine").name, "mine.mp4");
});
