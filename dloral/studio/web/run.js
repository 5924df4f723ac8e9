// Starting, watching and stopping a restoration.

import { announce, disabledWhile, fillBar, find, pictureFrom } from "./dom.js";
import { LostError } from "./link.js";
import { differs } from "./results.js";
import { partWords, rangeWords, rateWords } from "./words.js";

const POLL = 250;                  // ms between two looks at a running job
const SAID_EACH = 30000;           // ms between two words to screen readers
export const HEARTBEAT = 15000;    // and when nothing runs, so that the server knows of us
const POLL_PAUSED = 1000;
const PAUSED = "paused";
export const RUNNING = ["waiting", "loading", "looking", "restoring", "writing", PAUSED];
const TITLE = document.title;

export class Run {
  constructor(link, { onLatest, onEnd, onError }) {
    this.link = link;
    this.onLatest = onLatest;
    this.onEnd = onEnd;
    this.onError = onError;
    this.job = null;
    this.latest = -1;
    find("#cancel").addEventListener("click", () => this.cancel());
    find("#pause").addEventListener("click", () => this.pause());
    find("#change").addEventListener("click", () => this.change());
    document.addEventListener("visibilitychange", () => { if (!document.hidden && !this.isRunning) document.title = TITLE; });
  }

  get isPaused() { return this.job?.stage === PAUSED; }

  get isRunning() { return Boolean(this.job) && RUNNING.includes(this.job.stage); }

  async start(settings) {
    find("#run").disabled = true;
    // Asked for by a press, as browsers want it; without it the title alone tells.
    if (globalThis.Notification?.permission === "default") Notification.requestPermission().then(() => this.show(this.job)).catch(() => {});
    try {
      // One that failed goes on from the parts that it has.
      const path = this.job?.stage === "failed" ? "job/retry" : "job";
      this.follow(await this.link.call("POST", path, { body: { settings } }));
      find("#cancel").focus();
    } catch (error) {
      find("#run").disabled = false;
      this.onError(error);
    }
  }

  // From a state that holds a job: watch it until it ends.
  follow(state) {
    this.latest = -1;
    this.show(state.job);
    if (this.isRunning) this.watch();
  }

  async watch() {
    if (this.isWatching) return;
    this.isWatching = true;
    try {
      while (this.isRunning) {
        const { token } = this.link;
        await new Promise((resolve) => setTimeout(resolve, this.isPaused ? POLL_PAUSED : POLL));
        if (token !== this.link.token) continue;
        const state = await this.link.call("GET", "state");
        if (token !== this.link.token) continue;  // another visit is shown since
        this.show(state.job);
        if (!this.isRunning) this.ended(state);
        else if (state.job.frame > this.latest) await this.fetchLatest();
      }
    } catch (error) {
      if (!(error instanceof LostError)) this.onError(error);
    } finally {
      this.isWatching = false;
    }
  }

  async fetchLatest() {
    const { token } = this.link, found = await this.link.call("GET", "latest");
    if (!found.blob || token !== this.link.token) return;
    this.latest = Number(found.headers.get("x-frame"));
    const picture = await pictureFrom(found.blob);
    if (this.isRunning && token === this.link.token) this.onLatest(picture, this.latest, this.job);
  }

  async cancel() {
    find("#cancel").disabled = true;
    find("#said").textContent = "Stopping; finished frames are kept …";
    try { await this.link.call("DELETE", "job"); } catch (error) { this.onError(error); }
  }

  // Keep what is done and let the next clip begin; or go on.
  async pause() {
    const act = this.isPaused ? "resume" : "pause";
    await disabledWhile(find("#pause"), async () => {
      try { this.show((await this.link.call("POST", `job/${act}`, { body: {} })).job); } catch (error) { this.onError(error); }
    });
  }

  // What waits or is paused can be given other settings; what is done with these very settings is
  // not the next thing to press. ``result``: of the clip, if there is one.
  compare(settings, result) {
    this.settings = settings;
    this.result = result;
    const isDone = Boolean(result) && !result.part && !differs(result.settings, settings);
    find(".studio").dataset.done = String(isDone);
    find("#run").textContent = isDone ? "Restore again" : startWords(settings);
    find("#run").classList.toggle("primary", !isDone);
    find("#change").hidden = !["waiting", PAUSED].includes(this.job?.stage) || !differs(this.job.settings, settings);
  }

  async change() {
    try {
      this.show((await this.link.call("PUT", "job", { body: { settings: this.settings } })).job);
      announce("Settings updated");
    } catch (error) { this.onError(error); }
  }

  ended(state) {
    const words = state.result ? `${state.result.clip} is restored${state.result.part ? " in part" : ""}` : "Restoration ended";
    announce(words);
    document.title = document.hidden ? `Done: ${TITLE}` : TITLE;
    if (document.hidden) notify(words);
    this.onEnd(state);
  }

  show(job) {
    this.job = job;
    const isRunning = this.isRunning;
    find(".studio").dataset.running = String(isRunning);
    find("#run").hidden = isRunning;
    find("#run").disabled = isRunning;
    find("#cancel").hidden = find("#pause").hidden = !isRunning;
    find("#pause").textContent = this.isPaused ? "Resume" : "Pause";
    if (!isRunning) find("#cancel").disabled = false;
    find("#progress").hidden = !isRunning;
    if (this.settings) this.compare(this.settings, this.result);
    find("#plan").hidden = isRunning && find("#change").hidden;
    if (!isRunning) return;
    find("#untold").hidden = globalThis.Notification?.permission !== "denied";
    const share = job.stage === "writing" ? 1 : ["restoring", PAUSED].includes(job.stage) && job.frames ? job.frame / job.frames : null;
    fillBar(find("#progress .bar"), share);
    document.title = share === null ? TITLE : `${Math.floor(100 * share)} % · ${TITLE}`;
    if (find("#cancel").disabled) return;
    find("#said").textContent = runWords(job);
    if (Date.now() - (this.saidAt ?? 0) > SAID_EACH) {
      this.saidAt = Date.now();
      announce(find("#said").textContent);
    }
  }
}

// That only a part will be restored is said where it is pressed.
export const startWords = ({ duration }) => (duration === null ? "Restore" : `Restore these ${partWords(duration)}`);

export const runWords = (job) => {
  if (job.halt === "pause") return "Pausing after this frame …";
  if (job.halt === "cancel") return "Stopping; finished frames are kept …";
  if (job.stage === PAUSED) return job.frames ? `Paused at ${job.frame} of ${job.frames}; progress is kept` : "Paused";
  if (job.stage === "waiting") {
    if (!job.before) return "Starting …";
    return `${job.before} clip${job.before === 1 ? "" : "s"} ahead of yours`;
  }
  if (job.stage === "loading") return "Reading the clip …";
  if (job.stage === "looking") return `Analysing scenes, ${job.scenes.length} so far …`;
  if (job.stage === "writing") return "Writing the last frames and the sound …";
  const parts = [`Restoring ${job.frame}${job.frames ? ` of ${job.frames}` : ""}`];
  if (job.rate) parts.push(rateWords(job.rate));
  if (job.left) parts.push(`${rangeWords(job.left[0], job.left[1])} left`);
  return parts.join(" · ");
};

const notify = (words) => {
  try {
    if (globalThis.Notification?.permission === "granted") new Notification(words, { tag: "dloral" });
  } catch { /* some browsers allow it to service workers alone; the title tells */ }
};
