// The page: what is open, what is shown, and who is told of what.

import { Compare } from "./compare.js";
import { Controls } from "./controls.js";
import { Curves } from "./curves.js";
import { all, announce, check, cover, download, find, pictureFrom, radios } from "./dom.js";
import { Gestures } from "./gestures.js";
import { GoneError, Link, LostError, RefusedError } from "./link.js";
import { ModelMenu } from "./models.js";
import { Motion } from "./motion.js";
import { CONFIG, element, mount } from "./mount.js";
import { Player } from "./player.js";
import { Preview } from "./preview.js";
import { Results } from "./results.js";
import { HEARTBEAT, Run, RUNNING } from "./run.js";
import { Scenes } from "./scenes.js";
import { Sheet } from "./sheet.js";
import { Size } from "./size.js";
import { Source } from "./source.js";
import { Steering } from "./steering.js";
import { Strip, THUMBNAILS } from "./strip.js";
import { recallFolds, recallTheme, toggleTheme } from "./theme.js";
import { Tray } from "./tray.js";
import { Viewer } from "./viewer.js";
import { freeVisit, hold, letGo, ownToken } from "./visits.js";
import { clamp, modelWords } from "./words.js";

export class StudioPage {
  constructor() {
    this.state = { clip: null, job: null, result: null };
    this.frame = 0;           // of the source, that is previewed
    this.showing = "preview";
    this.link = new Link((isOnline) => this.lost(isOnline), (state) => this.back(state));
    this.viewer = new Viewer(find("#stage"));
    this.preview = new Preview(this.link, this.viewer);
    this.player = new Player(this.viewer, find("#player"), this.link);
    this.steering = new Steering(() => this.steered(), (strength) => this.mixed(strength));
    this.sheet = new Sheet(this.link, (scales) => this.steering.set(scales));
    this.strip = new Strip(this.link, { onTrim: (second) => { this.controls.planSoon(); this.previewAt(second); }, onSeek: (second) => this.toSecond(second) });
    this.scenes = new Scenes(this.link, {
      look: () => ({ clip: this.state.clip, settings: this.controls?.values ?? { start: 0, duration: null } }),
      onChange: () => this.settled(), onError: (error) => this.fail(error),
    });
    this.models = new ModelMenu(this.link, () => this.refresh().catch((error) => this.fail(error)));
    this.size = new Size(() => this.settled());
    this.controls = new Controls(this.link, { steering: this.steering, strip: this.strip, scenes: this.scenes, size: this.size }, {
      look: () => ({ ...this.state, frame: this.frame, isRunning: this.run?.isRunning }),
      onChange: () => this.settled(), onGone: () => this.lostVisitor(),
    });
    this.curves = new Curves(this.link, (index) => { this.show("result"); this.player.pause(); this.player.seek(index); });
    this.results = new Results(this.link, this.curves, {
      onError: (error) => this.fail(error),
      onBack: (settings) => { this.applySettings(settings); this.settled(); },
    });
    this.compare = new Compare(this.link, this.viewer, this.preview, {
      look: () => ({ settings: this.settings() }), onError: (error) => this.fail(error),
    });
    this.motion = new Motion(this.link, this.viewer, find("#motion-video"), {
      look: () => ({ clip: this.state.clip, frame: this.frame, settings: this.settings(), region: this.preview.region }),
      onError: (error) => this.fail(error), onBusy: (words) => this.busy(words),
    });
    this.motion.onStop = () => { if (this.showing === "preview") this.preview.present(); };
    this.tray = new Tray(this.link, {
      onOpen: (token) => this.openVisit(token), onCompare: (token, state) => this.compareWith(token, state),
      onError: (error) => this.fail(error), onSay: (text, undo) => this.say(text, "note", undo),
    });
    this.run = new Run(this.link, {
      onLatest: (picture, frame, job) => this.latest(picture, frame, job),
      onEnd: (state) => this.ended(state),
      onError: (error) => this.fail(error),
    });
    this.source = new Source(this.link, {
      onClip: (state) => { this.opened(state); this.focusAfterOpening(); },
      onFiles: (files) => this.takeFiles(files),
      onSettings: (settings, name) => { this.applySettings(settings); this.say(`Settings of ${name} are back.`, "note"); this.settled(); },
      onError: (error) => this.fail(error),
      leaveClip: () => this.leaveClip(),
    });
    this.gestures = new Gestures(this.viewer, {
      step: (by) => this.step(by), seek: (index) => this.seek(index), play: () => this.play(),
      full: () => this.fullScreen(), loop: () => this.toggleLoop(), sound: () => this.toggleSound(),
      help: () => find("#help").showModal(), pin: () => this.compare.toggle(), save: () => this.saveFrame(),
      restoreAt: (point) => { if (this.showing === "preview") { this.preview.moveTo(point); this.render(); } },
    });
    this.preview.onBusy = (words) => this.busy(words);
    this.preview.onShare = (share) => {
      this.viewer.names[1] = share > 0.9999 ? "Restored" : `Restored, ${Math.max(1, Math.floor(100 * share))} % so far`;
      if (this.showing === "preview") this.viewer.draw();
    };
    this.preview.mayFill = () => !this.run.isRunning && !this.motion.isPlaying && !this.sheet.isOpen;
    this.preview.onError = (error) => this.fail(error);
    this.viewer.onMove = () => this.followSoon();
    this.player.onFrame = (index) => this.where(index, this.player.times.length, this.player.times[index], this.state.result.first_frame);
    this.player.onState = (isPlaying) => this.playing(isPlaying);
    this.bind();
  }

  bind() {
    radios(find("#modes"), (button) => this.viewer.setMode(button.dataset.mode));
    radios(find("#shown"), (button) => this.show(button.dataset.show));
    const on = (id, what, name = "click") => find(`#${id}`).addEventListener(name, what);
    on("gain", () => { this.viewer.gain = Number(find("#gain").value); this.viewer.draw(); }, "change");
    on("zoom", () => this.viewer.toggleFit());
    on("zoom-in", () => this.gestures.zoom(1.25));
    on("zoom-out", () => this.gestures.zoom(0.8));
    on("full", () => this.fullScreen());
    on("help-open", () => find("#help").showModal());
    find("#help button").addEventListener("click", () => find("#help").close());
    on("back", () => this.step(-1));
    on("forth", () => this.step(1));
    on("play", () => this.play());
    on("loop", () => this.toggleLoop());
    on("sound", () => this.toggleSound());
    on("seek", () => this.seek(Number(find("#seek").value)), "input");
    on("run", () => this.start());
    on("close", () => this.close());
    on("theme", () => toggleTheme(() => this.curves.draw()));
    on("sheet-open", () => this.openSheet());
    on("save", () => this.saveFrame());
    on("tray-all", () => this.tray.downloadAll());
    on("undo", () => { const { undo } = this; this.say(""); undo?.(); });
    find("#message-close").addEventListener("click", () => this.say(""));
    document.addEventListener("fullscreenchange", () => this.viewer.resize());
    window.addEventListener("pagehide", () => { letGo(this.link.token); this.link.leave(); });
    window.addEventListener("beforeunload", (event) => { if (this.source.sending || this.tray.hasUnsent) event.preventDefault(); });
    setInterval(() => { if (this.link.token) hold(this.link.token); }, 4000);
    setInterval(() => this.beat(), HEARTBEAT);
  }

  async begin() {
    find("#model-name").textContent = modelWords(CONFIG.model);
    this.controls.recall();
    this.viewer.strength = this.steering.strength;
    this.controls.words();
    this.viewer.show(null);
    try {
      const free = ownToken() ? undefined : freeVisit();  // a page opened anew goes on where one was closed
      if (free) this.link.use(free.token); else await this.link.open();
      this.restored(await this.link.call("GET", "state").catch(async (error) => {
        if (!(error instanceof GoneError)) throw error;
        await this.link.open(true);
        return this.link.call("GET", "state");
      }));
      await this.models.open();
      this.tray.watch();
    } catch (error) { this.fail(error); }
    element.dataset.ready = "true";
  }

  // Everything as the server has it: after loading the page, and after a lost connection.
  restored(state) {
    if (!state.clip) { this.apply(state); return; }
    this.opened(state, true);
    if (state.result) this.ended(state);
    else if (state.job && RUNNING.includes(state.job.stage)) this.run.follow(state);
    else if (state.job?.error) this.fail(state.job.error);
    this.scenes.follow(state);
  }

  // A network that is gone and a server that was ended are two things.
  lost(isOnline) {
    find("#lost").hidden = false;
    find("#lost").textContent = isOnline ? "The page's server does not answer; it may have been ended. Trying again …"
      : "This device has no network. A running restoration goes on; trying again …";
  }

  async back(state) {
    find("#lost").hidden = true;
    if (!state) { await this.lostVisitor(); return; }
    this.restored(state);
  }

  async lostVisitor() {
    await this.link.open(true);
    const state = await this.link.call("GET", "state"), isAnew = this.started !== undefined && state.started !== this.started;
    this.opened(state);
    this.say(isAnew ? "The page's server was started anew. Drop the clip again." : "This page was away for too long, and its files are gone. Drop the clip again.", "note");
  }

  async beat() {
    if (this.run.isRunning || this.link.isLost) return;
    try {
      const state = await this.refresh();
      if (this.state.result && !state.result && !this.run.isRunning) {
        this.forgetResult();
        this.say("The result has expired and is gone; restore the clip again.", "note");
      }
    } catch (error) { if (error instanceof GoneError) this.lostVisitor(); }
  }

  // The state of this moment; a changed model is taken from it, and the rest left to the caller.
  async refresh() {
    const state = await this.link.call("GET", "state");
    if (this.takeModel(state.model)) this.settled();
    return state;
  }

  apply(state) {
    this.state = state;
    this.started = state.started;
    if (this.takeModel(state.model)) this.settled();
  }

  // Whether what is shown was made by another model: somebody changed it, or it is loaded now.
  takeModel(model) {
    const before = this.model ?? { name: CONFIG.model };
    this.model = this.state.model = model;
    find("#model-name").textContent = modelWords(model.name);
    find("#prompt-label").hidden = find("#scenes").hidden = !model.prompts;
    if (before.name === model.name && (before.vae ?? model.vae) === model.vae) return before.prompts !== undefined && before.prompts !== model.prompts;
    if (this.models.inUse !== undefined && (this.models.inUse !== model.name || this.models.vaeInUse !== model.vae)) this.models.open();
    return true;
  }

  // A clip was opened, or there is none any more.
  opened(state, isSame = false) {
    this.say("");
    this.motion.stop();
    this.compare.forgetOther();
    this.compare.forget();
    this.forgetResult();
    this.preview.forget();
    this.viewer.show(null);
    this.apply({ ...state, result: null });
    const { clip } = state;
    hold(this.link.token, clip?.name ?? "");
    this.size.opened(clip);
    this.source.rest(Boolean(clip));
    this.tray.draw();
    find("#drop").hidden = find("#others").hidden = Boolean(clip);
    find("#opened").hidden = !clip;
    find(".studio").dataset.phase = clip ? "clip" : "empty";
    find("#run").disabled = find("#sheet-open").disabled = !clip;
    this.run.show(isSame ? state.job : null);
    find("#run").disabled = !clip;
    this.strip.open(clip).then(() => this.thumb()).catch(() => {});
    if (!clip) { this.where(0, 0); this.settled(); return; }
    find("#clip-name").textContent = clip.name;
    find("#clip-name").title = clip.name;
    find("#facts").textContent = clip.facts.join(" · ");
    find("#format").disabled = find("#bit_depth").disabled = find("#crf").disabled = clip.kind === "image";
    find("#motion").hidden = clip.kind === "image" || clip.frames < 2;
    if (isSame) {
      if (state.job) this.applySettings(state.job.settings);
      else this.strip.set(this.controls.remembered ?? {});
    } else {
      this.size.set(clip.suggested.scale);
      this.scenes.put([]);
      this.strip.set({ start: 0, duration: clip.suggested.duration });
    }
    this.frame = isSame ? clamp(this.controls.remembered?.frame ?? 0, 0, clip.frames - 1) : 0;
    this.show("preview");
    this.settled();
  }

  thumb() {
    const { clip } = this.state, canvas = find("#thumb");
    if (!clip) return;
    const strip = this.strip.canvas, context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (this.strip.root.hidden) {
      this.link.call("GET", "thumbnails", { parameters: { count: 1 } }).then(async ({ blob }) => cover(context, await pictureFrom(blob))).catch(() => {});
    } else cover(context, strip, strip.width / THUMBNAILS);
  }

  // Another clip takes this one's place: what was made of it stays among the results.
  async leaveClip() {
    const { clip, job } = this.state;
    if (!clip || !job) return;
    letGo(this.link.token);
    await this.link.open(true);
    this.tray.wake?.();
  }

  async close() {
    const { clip } = this.state, { token } = this.link;
    try {
      letGo(token);
      await this.link.open(true);
      this.opened(await this.link.call("GET", "state"));
      find("#file").focus();
      this.tray.wake?.();
      this.say(`${clip.name} is closed.`, "note", () => this.openVisit(token));
    } catch (error) { this.fail(error); }
  }

  async openVisit(token) {
    try {
      const state = await this.link.call("GET", "state", { token });
      letGo(this.link.token);
      this.link.use(token);
      this.tray.drop(token);
      this.restored(state);
      this.tray.wake?.();
    } catch (error) { this.fail(error); }
  }

  // Several files: the first is shown if nothing else is, the others are restored one by one.
  async takeFiles(files) {
    this.say(`${files.length} files are restored one after another, with the settings of this moment.`, "note");
    await this.tray.queue(files, this.settings(), (file, token) => this.source.send(file, token));
  }

  async compareWith(token, { result }) {
    if (!this.state.result || this.state.result.image) { this.say("Open one result first; then compare another with it.", "note"); return; }
    this.show("result");
    await this.compare.withOther(token, result);
    this.compare.at(this.state.result.start + this.player.times[this.player.index], false);
    find("#stage").focus();
  }

  focusAfterOpening() {
    announce(`${this.state.clip?.name ?? ""} is open`);
    if ([document.body, null].includes(document.activeElement) || document.activeElement.closest("#choose, #others, #file")) find("#run").focus();
  }

  busy(words) { find("#busy").textContent = words; }

  async saveFrame() {
    if (!this.viewer.source) return;
    const blob = await this.viewer.snapshot(), address = URL.createObjectURL(blob);
    const number = this.showing === "result" ? this.player.index : this.frame;
    download(address, `${this.state.clip.name.replace(/\.[^.]*$/, "")}-frame-${number + 1}.png`);
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  // Settings --------------------------------------------------------------------------------

  settings() { return this.controls.values; }

  applySettings(settings) {
    this.controls.put(settings);
    this.viewer.strength = this.steering.strength;
  }

  // Anything but the scales changed: plan and preview follow.
  settled() {
    this.motion.stop();
    this.results.compare(this.settings());
    this.controls.words();
    this.controls.planSoon();
    this.render();
  }

  steered() {
    this.motion.stop();
    this.show("preview");
    this.results.compare(this.settings());
    this.controls.remember();
    this.render();
  }

  mixed(strength) {
    this.viewer.strength = this.showing === "preview" ? strength : 1;
    if (this.showing !== "preview") this.show("preview");
    this.viewer.draw();
    this.results.compare(this.settings());
    this.controls.remember();
  }

  // Preview and result ----------------------------------------------------------------------

  render() {
    const { clip } = this.state;
    if (!clip) return;
    if (this.showing === "preview") this.where(this.frame, clip.frames, this.frame / clip.fps, 0);
    this.motion.stop();
    this.preview.want(clip, this.frame, this.settings()).then(() => {
      if (!this.state.model?.loaded) this.beat();
      if (!this.hasPlan && !this.run.isRunning) this.controls.planSoon();  // the preview says how fast this clip is
      this.hasPlan = true;
    });
  }

  previewAt(second) {
    const { clip } = this.state;
    this.frame = clamp(Math.floor(second * clip.fps + 0.5), 0, clip.frames - 1);
    this.show("preview");
    this.render();
  }

  followSoon() {
    if (this.showing !== "preview") return;
    clearTimeout(this.followTimer);
    this.followTimer = setTimeout(() => {
      if (this.viewer.source && this.preview.follow(this.viewer.seen())) this.render();
    }, 160);
  }

  show(what) {
    if (what === "result" && find("#shown [data-show=result]").disabled) return;
    this.showing = what;
    if (what === "result") this.motion.stop();
    check(find("#shown"), find(`#shown [data-show=${what}]`));
    find("#motion").disabled = what !== "preview";
    const isPreview = what === "preview";
    this.viewer.strength = isPreview ? this.steering.strength : 1;
    const isPlayable = !isPreview && Boolean(this.state.result) && !this.state.result.image;
    for (const name of ["play", "loop"]) find(`#${name}`).disabled = !isPlayable;
    find("#sound").hidden = !isPlayable || !this.state.result.sound;
    this.compare.shown(isPreview);
    if (isPreview) this.preview.say();
    this.player.shown(!isPreview && Boolean(this.state.result));
    this.preview.shown(isPreview);
    if (isPreview && this.state.clip) this.where(this.frame, this.state.clip.frames, this.frame / this.state.clip.fps, 0);
    if (!isPreview && !this.state.result && this.newest) this.viewer.show(this.newest);
  }

  step(by) {
    if (this.showing === "result") this.player.step(by);
    else if (this.state.clip) this.seek(this.frame + by);
  }

  seek(index) {
    if (this.showing === "result") { this.player.pause(); this.player.seek(Math.min(index, this.player.times.length - 1)); return; }
    if (!this.state.clip) return;
    this.frame = clamp(index, 0, this.state.clip.frames - 1);
    this.controls.remember();
    this.render();
  }

  toSecond(second) {
    const { clip, result } = this.state;
    if (this.showing !== "result" || !result) { this.previewAt(second); return; }
    this.player.pause();
    this.player.seek(this.player.indexAt(second - result.start));
  }

  play() { if (this.showing === "result") this.player.toggle(); else if (this.state.result) { this.show("result"); this.player.play(); } }

  playing(isPlaying) {
    find("#play").classList.toggle("playing", isPlaying);
    find("#play").setAttribute("aria-label", isPlaying ? "Pause" : "Play");
  }

  toggleLoop() {
    const loops = !this.player.video.loop;
    this.player.video.loop = loops;
    find("#loop").setAttribute("aria-pressed", String(loops));
  }

  toggleSound() {
    const { video } = this.player;
    video.muted = !video.muted;
    find("#sound").setAttribute("aria-pressed", String(!video.muted));
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else find("#viewer").requestFullscreen?.();
  }

  where(index, count, time = 0, first = 0) {
    const seek = find("#seek");
    seek.max = String(Math.max(count - 1, 0));
    seek.value = String(index);
    seek.disabled = count < 2;
    seek.setAttribute("aria-valuetext", count ? `frame ${index + 1} of ${count}, ${time.toFixed(1)} seconds` : "");
    find("#where").textContent = count ? `Frame ${index + 1} of ${count} · ${time.toFixed(2)} s` : "";
    for (const name of ["back", "forth"]) find(`#${name}`).disabled = count < 2;
    if (this.state.clip) this.strip.now((index + first) / this.state.clip.fps);
    if (this.showing === "result" && this.state.result) {
      this.curves.at(index);
      this.compare.at(this.state.result.start + time, this.player.isPlaying);
    }
  }

  // Runs ------------------------------------------------------------------------------------

  async start() {
    this.say("");
    this.motion.stop();
    try { await this.keepResult(); } catch (error) { this.fail(error); return; }
    this.compare.forgetOther();
    this.forgetResult();
    await this.run.start(this.settings());
  }

  // A result that is there stays among the results: the clip goes on in a visit of its own.
  async keepResult() {
    if (!this.state.result) return;
    const { token } = await this.link.call("POST", "fork", { body: {} }), { name } = this.state.clip;
    letGo(this.link.token);
    this.link.use(token, name);
    this.tray.wake?.();
  }

  latest(picture, frame, job) {
    const { clip } = this.state;
    if (!clip) return;
    const scale = job.settings.scale;
    this.newest = {
      picture, width: picture.width, height: picture.height / 2,
      fullWidth: Math.round(clip.width * scale), fullHeight: Math.round(clip.height * scale),
    };
    const result = find("#shown [data-show=result]");
    if (result.disabled) { result.disabled = false; result.textContent = "Running"; this.show("result"); }
    if (this.showing !== "result") return;
    this.viewer.show(this.newest);
    this.where(frame - 1, job.frames ?? frame, (frame - 1) / clip.fps, Math.round((job.settings.start ?? 0) * clip.fps));
    find("#seek").disabled = find("#back").disabled = find("#forth").disabled = true;
  }

  async ended(state) {
    this.newest = null;
    if (!state.result) {
      const { job } = state;
      this.forgetResult();
      this.apply({ ...state, result: null });
      if (job?.error) this.say(job.error, job.stage === "stopped" ? "note" : "error");
      this.render();
      return;
    }
    this.apply(state);
    this.run.show(state.job);
    this.results.offer(state.result);
    this.results.compare(this.settings());
    this.controls.planSoon();
    if (document.activeElement === document.body || document.activeElement?.closest("#actions")) find("#results").focus({ preventScroll: true });
    if (state.model.prompts && !this.scenes.starts.length) this.scenes.put(state.result.scenes);
    try {
      await this.player.load(state.result);
    } catch (error) { this.fail(error); return; }
    if (this.player.result !== state.result) return;  // another clip or run came meanwhile
    const button = find("#shown [data-show=result]");
    button.disabled = false;
    button.textContent = "Result";
    this.show("result");
    this.curves.load(state.result).catch(() => {});
  }

  forgetResult() {
    this.player.shown(false);
    this.player.unload();
    this.newest = null;
    this.state = { ...this.state, result: null };
    this.results.forget();
    const button = find("#shown [data-show=result]");
    button.disabled = true;
    button.textContent = "Result";
    this.show("preview");
  }

  async openSheet() {
    this.show("preview");
    const seen = this.viewer.source && !this.viewer.fits ? this.viewer.seen() : null;
    try {
      await this.sheet.open(this.frame, this.settings(), seen && { x: seen.x + seen.width / 2, y: seen.y + seen.height / 2 });
    } catch (error) { this.sheet.dialog.close(); this.fail(error); }
  }

  // Words -----------------------------------------------------------------------------------

  fail(error) {
    if (error instanceof GoneError) { this.lostVisitor().catch(() => {}); return; }
    if (error instanceof LostError) return;  // the banner says so
    if (!(error instanceof RefusedError) && typeof error !== "string") console.error(error);
    this.say(typeof error === "string" ? error : error.message, "error");
  }

  // ``undo``: what takes it back, if that can be.
  say(text, kind = "error", undo = undefined) {
    const message = find("#message");
    message.hidden = !text;
    message.className = kind;
    message.setAttribute("role", kind === "error" ? "alert" : "status");
    message.firstElementChild.textContent = text;
    this.undo = undo;
    find("#undo").hidden = !undo;
  }
}

/** @param {{element: HTMLElement, server: any, config: import("./types").Configuration}} given */
export const start = ({ element: root, server, config }) => {
  mount(root, server, config);
  recallTheme();
  recallFolds();
  const page = new StudioPage();
  /** @type {any} */ (window).studioPage = page;  // for tests, and for whoever looks at it in the console
  page.begin();
};
