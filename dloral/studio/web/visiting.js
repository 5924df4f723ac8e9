// What this browser has open: another clip, another visit, a lost connection; nothing is thrown away.

import { announce, cover, find, pictureFrom } from "./dom.js";
import { THUMBNAILS } from "./strip.js";
import { show } from "./transport.js";
import { hold, letGo } from "./visits.js";

const HOLD_EACH = 4000;  // ms between two words that this tab shows its visit

// A warning only where something would be lost: files that are not sent yet.
export const watchLeaving = (page) => {
  window.addEventListener("pagehide", () => { letGo(page.link.token); page.link.leave(); });
  window.addEventListener("beforeunload", (event) => { if (page.source.sending || page.tray.hasUnsent) event.preventDefault(); });
  setInterval(() => { if (page.link.token) hold(page.link.token); }, HOLD_EACH);
};

// A network that is gone and a server that was ended are two things.
export const lost = (page, isOnline) => {
  find("#lost").hidden = false;
  find("#lost").textContent = isOnline ? "The server is not responding; it may have stopped. Trying again …"
    : "This device is offline. A running restoration continues; trying again …";
};

export const back = async (page, state) => {
  find("#lost").hidden = true;
  if (!state) { await lostVisitor(page); return; }
  page.restored(state);
};

export const lostVisitor = async (page) => {
  await page.link.open(true);
  const state = await page.link.call("GET", "state"), isAnew = page.started !== undefined && state.started !== page.started;
  page.opened(state);
  page.say(isAnew ? "The server was restarted. Drop the clip again." : "This page was inactive for too long, and its files were deleted. Drop the clip again.", "note");
};

// Another clip takes this one's place: what was made of it stays among the results.
export const leaveClip = async (page) => {
  const { clip, job } = page.state;
  if (!clip || !job) return;
  letGo(page.link.token);
  await page.link.open(true);
  page.tray.wake?.();
};

export const close = async (page) => {
  const { clip } = page.state, { token } = page.link;
  try {
    letGo(token);
    await page.link.open(true);
    page.opened(await page.link.call("GET", "state"));
    find("#file").focus();
    page.tray.wake?.();
    page.say(`${clip.name} closed.`, "note", () => openVisit(page, token));
  } catch (error) { page.fail(error); }
};

export const openVisit = async (page, token) => {
  try {
    const state = await page.link.call("GET", "state", { token });
    letGo(page.link.token);
    page.link.use(token);
    page.tray.drop(token);
    page.restored(state);
    page.tray.wake?.();
  } catch (error) { page.fail(error); }
};

// Several clips are restored one by one: files that are sent, or files of this machine.
const queue = async (page, files) => {
  page.say(`${files.length} files will be restored one after another with the current settings; each can get others in the list.`, "note");
  await page.tray.queue(files, page.settings(), page.state.clip ? page.size.name : "");
};

export const takeFiles = (page, files) =>
  queue(page, files.map((file) => ({ name: file.name, isSent: true, open: (token) => page.source.send(file, token) })));

export const takePlaces = (page, files) => {
  const open = (path, token) => page.link.call("POST", "place", { token, body: { path } });
  if (files.length === 1) return page.source.openBy((token) => open(files[0].path, token));
  return queue(page, files.map(({ name, path }) => ({ name, isSent: false, open: (token) => open(path, token) })));
};

export const compareWith = async (page, token, { result }) => {
  if (!page.state.result || page.state.result.image) { page.say("Open one result first, then compare another with it.", "note"); return; }
  show(page, "result");
  await page.compare.withOther(token, result);
  page.compare.at(page.state.result.start + page.player.times[page.player.index], false);
  find("#stage").focus();
};

// A result that is there stays among the results: the clip goes on in a visit of its own.
export const keepResult = async (page) => {
  if (!page.state.result) return;
  const { token } = await page.link.call("POST", "fork", { body: {} }), { name } = page.state.clip;
  letGo(page.link.token);
  page.link.use(token, name);
  page.tray.wake?.();
};

export const focusAfterOpening = (page) => {
  announce(`${page.state.clip?.name ?? ""} opened`);
  if (!document.activeElement || document.activeElement === document.body || document.activeElement?.closest("#choose, #others, #file")) find("#run").focus();
};

// What was pressed to start or stop a run is hidden at its end.
export const focusAfterRun = (page, hasResult) => {
  if (document.activeElement !== document.body && !document.activeElement?.closest("#actions")) return;
  find(hasResult ? "#results" : "#run").focus({ preventScroll: true });
};

export const thumb = (page) => {
  const { clip } = page.state, canvas = find("#thumb");
  if (!clip) return;
  const strip = page.strip.canvas, context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (page.strip.root.hidden) {
    page.link.call("GET", "thumbnails", { parameters: { count: 1 } }).then(async ({ blob }) => cover(context, await pictureFrom(blob))).catch(() => {});
  } else cover(context, strip, strip.width / THUMBNAILS);
};
