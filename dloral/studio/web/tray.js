// "Your results" and the queue: every visit of this browser but the one that is shown.

import { announce, download, find } from "./dom.js";
import { LostError } from "./link.js";
import { settingsFor } from "./looks.js";
import { CONFIG } from "./mount.js";
import { settingsWords } from "./results.js";
import { RUNNING, runWords } from "./run.js";
import { forget, remember, visits } from "./visits.js";
import { bytesWords, longWords } from "./words.js";

const POLL_RUNNING = 1500;  // ms between two looks while one of them runs
const POLL_RESTING = 15000;
const MOST_ARCHIVED = 100;  // results in one zip file; as in routes/queue.py
const MOVABLE = ["waiting", "paused"];  // what has a place in the queue that can be changed

const wait = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

export class Tray {
  // ``dials()``: the settings that the page's controls say; null while none are shown.
  constructor(link, { onOpen, onCompare, onError, onSay, dials }) {
    this.link = link;
    this.onOpen = onOpen;
    this.onCompare = onCompare;
    this.onError = onError;
    this.onSay = onSay;
    this.dials = dials;
    this.states = new Map();   // token -> its clip, job and result, as the server told last
    this.opening = "";         // the token of the visit whose file is on its way
    this.files = [];           // of the queue, not opened yet: {name, settings, size, open(token)}
    this.pictures = new Map();  // address -> its picture, so that a list drawn anew does not flash
    this.list = find("#tray-list");
    this.list.addEventListener("click", (event) => this.press(event));
  }

  get hasUnsent() { return this.files.some(({ isSent }) => isSent); }

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
    // A visit that is asked about is not given up; one whose file is on its way is in no list yet.
    const { opening } = this, tokens = [...visits().map(({ token }) => token), opening].filter((token) => token && token !== this.link.token);
    if (tokens.length && !this.link.isLost) {
      const found = (await this.link.call("POST", "visits", { token: "", body: { tokens } })).visits;
      delete found[opening];
      this.took(found);
    }
    this.draw();
  }

  // What the server said of some visits; those that it does not know any more go.
  took(found) {
    for (const [token, state] of Object.entries(found)) {
      const before = this.states.get(token), name = before?.clip?.name;
      if (RUNNING.includes(before?.job?.stage) && state?.result) announce(`${state.result.clip} is restored`);
      if (state?.clip) { this.states.set(token, state); continue; }
      if (before?.result) this.onSay(`The result of ${name} has expired; restore the clip again.`);
      else if (RUNNING.includes(before?.job?.stage)) this.onSay(`${name} has expired; restore the clip again.`);
      forget(token);
      this.states.delete(token);
    }
  }

  drop(token) { this.states.delete(token); this.draw(); }

  // First what is in the queue, by its place; then what is done, newest first.
  get known() {
    const all = visits().map(({ token }) => token).filter((token) => token !== this.link.token && this.states.has(token));
    const isQueued = (token) => RUNNING.includes(this.states.get(token).job?.stage);
    const place = ({ stage, place: number }) => (MOVABLE.includes(stage) ? number : -1);  // what runs comes first
    const inOrder = all.filter(isQueued).sort((a, b) => place(this.states.get(a).job) - place(this.states.get(b).job));
    return [...inOrder, ...all.filter((token) => !isQueued(token))];
  }

  draw() {
    const { known } = this;
    const key = JSON.stringify([known.map((token) => [token, this.states.get(token)]), this.files.map(({ name }) => name), this.sending, Boolean(this.dials())]);
    if (key === this.drawn) return;
    this.drawn = key;
    const held = /** @type {HTMLElement | null} */ (document.activeElement?.closest("#tray-list [data-act]") ?? null);
    const focus = held && [held.dataset.act, /** @type {HTMLElement} */ (held.closest("li")).dataset.token];
    find("#tray").hidden = !known.length && !this.files.length;
    this.list.replaceChildren(
      ...known.map((token) => this.entry(token, this.states.get(token))),
      ...this.files.map((file, index) => this.waiting(file, index)),
    );
    if (focus) this.list.querySelector(`[data-token="${focus[1]}"] [data-act="${focus[0]}"]:not(:disabled)`)?.focus();
    const done = known.filter((token) => this.states.get(token).result).length;
    const isQueue = this.files.length > 0 || known.some((token) => RUNNING.includes(this.states.get(token).job?.stage));
    find("#tray-title").textContent = isQueue ? "Queue and results" : "Your results";
    find("#tray-words").textContent = this.files.length ? `${this.files.length} still to open` : `results are kept for ${longWords(CONFIG.keepSeconds)}`;
    find("#tray-all").hidden = done < 2;
    find("#tray-keep").hidden = done < 1 || !CONFIG.isLocal;
  }

  entry(token, state) {
    const item = document.createElement("li"), words = document.createElement("div"), buttons = document.createElement("span");
    item.dataset.token = token;
    const { job, result } = state, { stage } = job ?? {};
    const isQueued = RUNNING.includes(stage);
    const says = result ? `${settingsWords(result.settings)} · ${bytesWords(result.bytes)}`
      : job?.error ?? (isQueued ? `${runWords(job)} · ${settingsWords(job.settings)}` : "not restored yet");
    words.append(...[["strong", "", state.clip.name], ["span", "muted", says]].map(([tag, style, text]) => {
      const line = document.createElement(tag);
      Object.assign(line, { className: style, textContent: text, title: text });
      return line;
    }));
    buttons.className = "row";
    const add = (act, text, label, isDisabled = false) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "small", textContent: text, disabled: isDisabled });
      button.dataset.act = act;
      button.title = `${label} ${state.clip.name}`;
      button.setAttribute("aria-label", button.title);
      buttons.append(button);
    };
    if (result) add("download", "Download", "Download");
    if (MOVABLE.includes(stage)) {
      const queue = this.movable, at = queue.indexOf(token);
      add("up", "↑", "Move up:", at === 0);
      add("down", "↓", "Move down:", at === queue.length - 1);
      if (this.dials()) add("dials", "Use current settings", "Apply current settings to");
    }
    if (stage === "paused") add("resume", "Resume", "Resume");
    else if (isQueued) add("pause", "Pause", "Pause", job.halt !== "");
    if (stage === "failed") add("retry", "Retry", "Retry, keeping finished parts:");
    add("open", "Open", "Open");
    if (result && !result.image) add("compare", "Compare", "Compare what is shown with");
    if (isQueued) add("cancel", "Stop", "Stop, keeping finished frames:", job.halt === "cancel");
    else add("delete", "Delete", "Delete");
    const picture = result || job ? this.picture(token, state) : null;
    item.append(...[picture, words, buttons].filter(Boolean));
    return item;
  }

  // Tokens of what waits or is paused, in order.
  get movable() { return this.known.filter((token) => MOVABLE.includes(this.states.get(token).job?.stage)); }

  picture(token, { result, clip }) {
    const path = result && !result.image ? this.link.url("thumbnail", {}, token) : this.link.url("thumbnails", { count: 1 }, token);
    const known = this.pictures.get(path) ?? document.createElement("img");
    this.pictures.set(path, known);
    if (!known.src) Object.assign(known, { src: path, alt: result ? `${clip.name}, before and after` : "", width: 96, height: 54 });
    return known;
  }

  waiting(file, index) {
    const item = document.createElement("li"), words = document.createElement("div"), name = document.createElement("strong"), says = document.createElement("span");
    name.textContent = file.name;
    says.className = "muted";
    says.textContent = index === 0 && this.sending ? (file.isSent ? "uploading" : "opening") : "waiting";
    words.append(name, says);
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "small", textContent: "Remove" });
    button.setAttribute("aria-label", `Remove ${file.name} from the queue`);
    button.addEventListener("click", () => { this.files = this.files.filter((one) => one !== file); this.draw(); });
    item.append(words, button);
    return item;
  }

  async press(event) {
    const button = event.target.closest("[data-act]");
    if (!button) return;
    const { token } = button.closest("li").dataset, state = this.states.get(token), { act } = button.dataset;
    button.disabled = true;  // until the list is drawn anew
    try {
      if (act === "download") { await this.fetch(token); button.disabled = false; }
      else if (act === "open") await this.onOpen(token);
      else if (act === "compare") { await this.onCompare(token, state); button.disabled = false; }
      else if (act === "delete") await this.remove(token, state);
      else if (act === "up" || act === "down") await this.move(token, act === "up" ? -1 : 1);
      else await this.change(token, act);
    } catch (error) { button.disabled = false; this.onError(error); }
    this.wake?.();
  }

  // A job is paused, resumed, tried again, ended, or given other settings.
  async change(token, act) {
    if (act === "cancel") await this.link.call("DELETE", "job", { token });
    else if (act === "dials") await this.link.call("PUT", "job", { token, body: { settings: this.own(this.dials()) } });
    else await this.link.call("POST", `job/${act}`, { token, body: {} });
    this.drawn = "";
    this.took((await this.link.call("POST", "visits", { token: "", body: { tokens: [token] } })).visits);
    this.draw();
  }

  async move(token, by) {
    const tokens = [...this.movable], at = tokens.indexOf(token);
    tokens.splice(at, 1);
    tokens.splice(at + by, 0, token);
    this.drawn = "";
    this.took((await this.link.call("POST", "order", { token: "", body: { tokens } })).visits);
    this.draw();
    announce(`${this.states.get(token).clip.name} is now ${at + by + 1} of ${tokens.length}`);
  }

  download(token) {
    const { result } = this.states.get(token);
    download(this.link.url(`files/${result.file}`, { download: 1 }, token), result.file);
  }

  // Not where it has expired since the last look, which then says so.
  async fetch(token) {
    this.took((await this.link.call("POST", "visits", { token: "", body: { tokens: [token] } })).visits);
    if (this.states.get(token)?.result) this.download(token); else this.draw();
  }

  get done() { return this.known.filter((token) => this.states.get(token).result); }

  // One zip file, for browsers ask about, or drop, several downloads at once; of very many results
  // several. Not of what has expired since the last look.
  async downloadAll() {
    const { done } = this;
    this.took((await this.link.call("POST", "visits", { token: "", body: { tokens: done } })).visits);
    this.draw();
    const tokens = done.filter((token) => this.states.get(token)?.result);
    for (let at = 0; at < tokens.length; at += MOST_ARCHIVED) {
      if (at) await wait(400);
      const visit = tokens.slice(at, at + MOST_ARCHIVED).map((token) => ["visit", token]);
      download(this.link.url("archive", visit, ""), "restored.zip");
    }
  }

  // Copies of all results in a folder of this machine.
  async keepAll(path) {
    const kept = [];
    for (const token of this.done) kept.push((await this.link.call("POST", "keep", { token, body: { path } })).file);
    this.onSay(`${kept.length === 1 ? kept[0] : `${kept.length} results`} saved in ${path}.`);
  }

  // Gone from the list at once; from the server when nobody can want it back any more.
  async remove(token, state) {
    forget(token);
    this.drop(token);
    this.onSay(`${state.clip.name} deleted.`, () => { remember(token, state.clip.name); this.wake?.(); });
  }

  // Settings for a clip of its own: which part and which scenes are another clip's.
  own(settings) { return { ...settings, start: 0, duration: null, scenes: undefined }; }

  // Clips one after another: each a visit of its own, restored with the settings of this moment.
  // ``size``: the name of the chosen size; "" where nobody chose: as large as suits each clip.
  /** @param {{name: string, isSent: boolean, open: (token: string) => Promise<any>}[]} files @param {string} size */
  async queue(files, settings, size) {
    this.files.push(...files.map((file) => ({ ...file, size, settings: this.own(settings) })));
    this.draw();
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.files.length) {
        const [file] = this.files;
        this.draw();
        try { await this.begin(file); } catch (error) {
          if (error instanceof LostError) { while (this.link.isLost) await wait(500); continue; }
          this.onError(error);
        }
        this.files = this.files.filter((one) => one !== file);
        this.draw();
      }
    } finally { this.sending = false; }
    this.wake?.();
  }

  async begin(file) {
    const token = this.opening = await this.link.newToken();
    const { clip } = await file.open(token).finally(() => { this.opening = ""; });
    if (!this.files.includes(file)) return;  // removed meanwhile
    remember(token, file.name);
    this.states.set(token, await this.link.call("POST", "job", { token, body: { settings: settingsFor(file.settings, file.size, clip, CONFIG.scale) } }));
  }
}
