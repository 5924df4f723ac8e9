import assert from "node:assert/strict";
import { test } from "node:test";

// As much of a page as a queue needs: whatever is looked for is there, and nothing is drawn.
const part = () => ({
  dataset: {}, style: {}, classList: { toggle() {} }, append() {}, replaceChildren() {},
  addEventListener() {}, setAttribute() {}, querySelector: () => null,
});
const kept = new Map();
const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
globalThis.location = { origin: "", pathname: "" };
globalThis.window = globalThis;
globalThis.localStorage = globalThis.sessionStorage = storage;
globalThis.document = { title: "DLoRAL", activeElement: null, addEventListener() {}, createElement: part };
const { mount } = await import("../../dloral/studio/web/mount.js");
mount({ querySelector: part, querySelectorAll: () => [] }, {}, { scale: [1, 4] });
const { Tray } = await import("../../dloral/studio/web/tray.js");
const { visits } = await import("../../dloral/studio/web/visits.js");

// A server that knows one visit, whose clip is there once its file has come.
const trayWith = () => {
  const asked = [];
  const clip = { name: "long.mp4", kind: "video", suggested: { scale: 4 } };
  const link = {
    token: "shown", isLost: false, newToken: async () => "queued", url: () => "",
    call: async (method, path, { body }) => {
      asked.push([path, body.tokens]);
      if (path === "visits") return { visits: Object.fromEntries(body.tokens.map((token) => [token, { clip: null }])) };
      return { clip, job: { stage: "waiting", before: 0, place: 1, halt: "", settings: body.settings }, result: null };
    },
  };
  const tray = new Tray(link, { onOpen() {}, onCompare() {}, onError(error) { throw error; }, onSay() {}, dials: () => null });
  return { tray, asked, clip };
};

test("a visit is asked about while its file is on its way, so that it is not given up", async () => {
  const { tray, asked, clip } = trayWith();
  let arrive;
  const file = { name: "long.mp4", isSent: true, open: () => new Promise((resolve) => { arrive = resolve; }) };
  const done = tray.queue([file], { start: 0, duration: null, scale: 2, consistency: 1, detail: 1, strength: 1, format: "h264" }, "");
  await new Promise(setImmediate);
  await tray.look();
  assert.deepEqual(asked, [["visits", ["queued"]]]);
  assert.deepEqual(visits(), []);  // no other tab may take it for its own
  const late = tray.look();  // asked before the file is there, answered afterwards
  arrive({ clip });
  await Promise.all([late, done]);
  assert.deepEqual(visits().map(({ token }) => token), ["queued"]);
  assert.equal(tray.opening, "");
});

test("a file that is refused leaves no visit to ask about", async () => {
  const { tray, asked } = trayWith();
  kept.clear();
  const said = [];
  tray.onError = (error) => said.push(error.message);
  await tray.queue([{ name: "a.txt", isSent: true, open: async () => { throw new Error("no clip"); } }], {}, "");
  assert.deepEqual(said, ["no clip"]);
  await tray.look();
  assert.deepEqual(asked, []);
});
