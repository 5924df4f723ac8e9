// "Your results" and the queue: every visit of this browser but the one that is shown.

import { announce, download, find } from "./dom.js";
import { GoneError, LostError } from "./link.js";
import { runWords, RUNNING } from "./run.js";
import { settingsWords } from "./results.js";
import { forget, remember, visits } from "./visits.js";
import { bytesWords } from "./words.js";

const POLL_RUNNING = 1500;  // ms between two looks while one of them runs
const POLL_RESTING = 15000;

export class Tray {
  constructor(link, { onOpen, onCompare, onError, onSay }) {
    this.link = link;
    this.onOpen = onOpen;
    this.onCompare = onCompare;
    this.onError = onError;
    this.onSay = onSay;
    this.states = new Map();   // token -> its state, as the server told last
    this.files = [];           // of the queue, not sent yet: {file, settings}
    this.list = find("#tray-list");
    this.list.addEventListener("click", (event) => this.press(event));
  }

  get hasUnsent() { return this.files.length > 0; }

  // Looks at all visits now, and again as long as the page is open.
  async watch() {
    if (this.isWatching) return;
    this.isWatching = true;
    for (;;) {
      try { await this.look(); } catch { /* the banner tells of a lost connection */ }
      const isRunning = [...this.states.values()].some((state) => RUNNING.includes(state.job?.stage));
      await new Promise((resolve) => { this.wake = resolve; setTimeout(resolve, isRunning ? POLL_RUNNING : POLL_RESTING); });
    }
  }

  async look() {
    for (const { token, name } of visits()) {
      if (token === this.link.token || this.link.isLost) continue;
      try {
        const state = await this.link.call("GET", "state", { token });
        const before = this.states.get(token);
        if (RUNNING.includes(before?.job?.stage) && state.result) announce(`${state.result.clip} is restored`);
        if (!state.clip) { forget(token); this.states.delete(token); continue; }
        this.states.set(token, state);
      } catch (error) {
        if (error instanceof LostError) return;
        if (!(error instanceof GoneError)) throw error;
        if (RUNNING.includes(this.states.get(token)?.job?.stage)) this.onSay(`${name} has expired and is gone; restore the clip again.`);
        forget(token);
        this.states.delete(token);
      }
    }
    this.draw();
  }

  drop(token) { this.states.delete(token); this.draw(); }

  draw() {
    const known = visits().filter(({ token }) => token !== this.link.token && this.states.has(token));
    const key = JSON.stringify([known.map(({ token }) => [token, this.states.get(token).job?.stage, this.states.get(token).job?.frame, this.states.get(token).job?.before]), this.files.length, this.sending]);
    if (key === this.drawn) return;
    this.drawn = key;
    const held = /** @type {HTMLElement | null} */ (document.activeElement?.closest("#tray-list [data-act]") ?? null);
    const focus = held && [held.dataset.act, /** @type {HTMLElement} */ (held.closest("li")).dataset.token];
    find("#tray").hidden = !known.length && !this.files.length;
    this.list.replaceChildren(
      ...known.map(({ token }) => this.entry(token, this.states.get(token))),
      ...this.files.map(({ file }, index) => this.waiting(file, index)),
    );
    if (focus) this.list.querySelector(`[data-token="${focus[1]}"] [data-act="${focus[0]}"]`)?.focus();
    const done = known.filter(({ token }) => this.states.get(token).result).length;
    find("#tray-words").textContent = this.files.length ? `${this.files.length} still to be sent` : "kept for some hours";
    find("#tray-all").hidden = done < 2;
  }

  entry(token, state) {
    const item = document.createElement("li"), words = document.createElement("div");
    item.dataset.token = token;
    const name = document.createElement("strong"), says = document.createElement("span");
    name.textContent = state.clip.name;
    says.className = "muted";
    const { job, result } = state;
    says.textContent = result ? `${settingsWords(result.settings)} · ${bytesWords(result.bytes)}`
      : job?.error ?? (job && RUNNING.includes(job.stage) ? runWords(job) : "not restored yet");
    words.append(name, says);
    const buttons = document.createElement("span");
    buttons.className = "row";
    const add = (act, text, label) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "small", textContent: text });
      button.dataset.act = act;
      button.setAttribute("aria-label", `${label} ${state.clip.name}`);
      buttons.append(button);
    };
    if (result) add("download", "Download", "Download");
    add("open", "Open", "Open");
    if (result && !result.image) add("compare", "Compare", "Compare what is shown with");
    if (job && RUNNING.includes(job.stage)) add("cancel", "Cancel", "Cancel");
    else add("delete", "Delete", "Delete");
    const picture = result || job ? this.picture(token, state) : null;
    item.append(...[picture, words, buttons].filter(Boolean));
    return item;
  }

  picture(token, { result, clip }) {
    const picture = document.createElement("img");
    const path = result && !result.image ? this.link.url("thumbnail", {}, token) : this.link.url("thumbnails", { count: 1 }, token);
    Object.assign(picture, { src: path, alt: result ? `${clip.name}, before and after` : "", width: 96, height: 54 });
    return picture;
  }

  waiting(file, index) {
    const item = document.createElement("li"), words = document.createElement("div"), name = document.createElement("strong"), says = document.createElement("span");
    name.textContent = file.name;
    says.className = "muted";
    says.textContent = index === 0 && this.sending ? "is being sent" : "waits to be sent";
    words.append(name, says);
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "small", textContent: "Remove" });
    button.setAttribute("aria-label", `Remove ${file.name} from the queue`);
    button.addEventListener("click", () => { this.files = this.files.filter((one) => one.file !== file); this.draw(); });
    item.append(words, button);
    return item;
  }

  async press(event) {
    const button = event.target.closest("[data-act]");
    if (!button) return;
    const { token } = button.closest("li").dataset, state = this.states.get(token);
    try {
      if (button.dataset.act === "download") this.download(token);
      else if (button.dataset.act === "open") await this.onOpen(token);
      else if (button.dataset.act === "compare") await this.onCompare(token, state);
      else if (button.dataset.act === "cancel") await this.link.call("DELETE", "job", { token });
      else await this.remove(token, state);
      this.wake?.();
    } catch (error) { this.onError(error); }
  }

  download(token) {
    const { result } = this.states.get(token);
    download(this.link.url(`files/${result.file}`, { download: 1 }, token), result.file);
  }

  async downloadAll() {
    for (const { token } of visits()) {
      if (!this.states.get(token)?.result) continue;
      this.download(token);
      await new Promise((resolve) => setTimeout(resolve, 400));  // browsers drop some of many at once
    }
  }

  // Gone from the list at once; from the server when nobody can want it back any more.
  async remove(token, state) {
    forget(token);
    this.drop(token);
    this.onSay(`${state.clip.name} is removed.`, () => { remember(token, state.clip.name); this.wake?.(); });
  }

  // Files one after another: each a visit of its own, restored with the settings of this moment.
  async queue(files, settings, send) {
    this.files.push(...files.map((file) => ({ file, settings })));
    this.draw();
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.files.length) {
        const { file, settings: own } = this.files[0];
        this.draw();
        try {
          const token = await this.link.newToken();
          await send(file, token);
          remember(token, file.name);
          this.states.set(token, await this.link.call("POST", "job", { token, body: { settings: { ...own, start: 0, duration: null, scenes: undefined } } }));
        } catch (error) { this.onError(error); }
        this.files = this.files.filter((one) => one.file !== file);
        this.draw();
      }
    } finally { this.sending = false; }
    this.wake?.();
  }
}
