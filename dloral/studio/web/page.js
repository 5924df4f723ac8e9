// The page: what is open, what is shown, and who is told of what.

import { Compare } from "./compare.js";
import { Controls } from "./controls.js";
import { Curves } from "./curves.js";
import { find, radios } from "./dom.js";
import { Gestures } from "./gestures.js";
import { GoneError, Link, LostError, RefusedError } from "./link.js";
import { ModelMenu, sayModel } from "./models.js";
import { Motion } from "./motion.js";
import { CONFIG, element, mount } from "./mount.js";
import { Places } from "./places.js";
import { Player } from "./player.js";
import { Preview } from "./preview.js";
import { Results } from "./results.js";
import { HEARTBEAT, Run, RUNNING } from "./run.js";
import { Scenes } from "./scenes.js";
import { Sheet } from "./sheet.js";
import { Size } from "./size.js";
import { Source } from "./source.js";
import { Steering } from "./steering.js";
import { Strip } from "./strip.js";
import { recallFolds, recallTheme, toggleTheme } from "./theme.js";
import { fullScreen, openSheet, play, playing, saveFrame, seek, show, step, toggleLoop, toggleSound, toSecond, where } from "./transport.js";
import { Tray } from "./tray.js";
import { Viewer } from "./viewer.js";
import { back, close, compareWith, focusAfterOpening, focusAfterRun, keepResult, leaveClip, lost, lostVisitor, openVisit, takeFiles, takePlaces, thumb, watchLeaving } from "./visiting.js";
import { freeVisit, hold, ownToken } from "./visits.js";
import { clamp } from "./words.js";

export class StudioPage {
  constructor() {
    this.state = { clip: null, job: null, result: null };
    this.frame = 0;           // of the source, that is previewed
    this.showing = "preview";
    this.link = new Link((isOnline) => lost(this, isOnline), (state) => back(this, state));
    this.viewer = new Viewer(find("#stage"));
    this.preview = new Preview(this.link, this.viewer);
    this.player = new Player(this.viewer, find("#player"), this.link);
    this.steering = new Steering(() => this.steered(), (strength) => this.mixed(strength));
    this.sheet = new Sheet(this.link, (scales) => this.steering.set(scales));
    this.strip = new Strip(this.link, { onTrim: (second) => { this.compareSettings(); this.controls.planSoon(); this.previewAt(second); }, onSeek: (second) => toSecond(this, second) });
    this.scenes = new Scenes(this.link, {
      look: () => ({ clip: this.state.clip, settings: this.controls?.values ?? { start: 0, duration: null } }),
      onChange: () => this.settled(), onError: (error) => this.fail(error),
    });
    this.models = new ModelMenu(this.link, () => this.refresh().catch((error) => this.fail(error)));
    this.size = new Size(() => this.settled());
    this.controls = new Controls(this.link, { steering: this.steering, strip: this.strip, scenes: this.scenes, size: this.size }, {
      look: () => ({ ...this.state, frame: this.frame, isRunning: this.run?.isRunning }),
      onChange: () => this.settled(), onGone: () => lostVisitor(this),
    });
    this.curves = new Curves(this.link, (index) => { show(this, "result"); this.player.pause(); this.player.seek(index); });
    this.results = new Results(this.link, this.curves, {
      onError: (error) => this.fail(error),
      onBack: (settings) => { this.applySettings(settings); this.settled(); }, look: () => this.beat(),
    });
    this.compare = new Compare(this.link, this.viewer, this.preview, {
      look: () => ({ settings: () => this.settings(), result: this.state.result, indexAt: (second) => this.player.indexAt(second - this.state.result.start) }), onError: (error) => this.fail(error),
    });
    this.motion = new Motion(this.link, this.viewer, find("#motion-video"), {
      look: () => ({ clip: this.state.clip, frame: this.frame, settings: this.settings(), region: this.preview.region }),
      onError: (error) => this.fail(error),
    });
    this.motion.onStop = () => { if (this.showing === "preview") this.preview.present(); };
    this.tray = new Tray(this.link, {
      onOpen: (token) => openVisit(this, token), onCompare: (token, state) => compareWith(this, token, state),
      onError: (error) => this.fail(error), onSay: (text, undo) => this.say(text, "note", undo), dials: () => (this.state.clip ? this.settings() : null),
    });
    this.places = new Places(this.link, (files) => takePlaces(this, files));
    this.run = new Run(this.link, {
      onLatest: (picture, frame, job) => this.latest(picture, frame, job),
      onEnd: (state) => this.ended(state),
      onError: (error) => this.fail(error),
    });
    this.source = new Source(this.link, {
      onClip: (state) => {
        if (state.result) {  // of an example, stored with it
          this.controls.remembered = null;
          this.restored(state);
        } else this.opened(state);
        focusAfterOpening(this);
      },
      onFiles: (files) => takeFiles(this, files),
      onSettings: (settings, name) => { this.applySettings(settings); this.say(`Settings loaded from ${name}.`, "note"); this.settled(); },
      onError: (error) => this.fail(error),
      leaveClip: () => leaveClip(this),
    });
    this.gestures = new Gestures(this.viewer, {
      step: (by) => step(this, by), seek: (index) => seek(this, index), play: () => play(this),
      full: () => fullScreen(this), loop: () => toggleLoop(this), sound: () => toggleSound(this),
      help: () => find("#help").showModal(), pin: () => this.compare.toggle(), save: () => saveFrame(this),
      restoreAt: (point) => { if (this.showing === "preview") { this.preview.moveTo(point); this.render(); } },
    });
    this.preview.onShare = (share) => this.compare.restored(share);
    this.preview.mayFill = () => !this.run.isRunning && !this.motion.isPlaying && !this.sheet.isOpen;
    this.preview.onError = (error) => this.fail(error);
    this.viewer.onMove = () => this.followSoon();
    this.player.onFrame = (index) => where(this, index, this.player.times.length, this.player.times[index], this.state.result.first_frame);
    this.player.onState = (isPlaying) => playing(this, isPlaying);
    this.bind();
  }

  bind() {
    radios(find("#modes"), (button) => this.viewer.setMode(button.dataset.mode));
    radios(find("#shown"), (button) => show(this, button.dataset.show));
    const on = (id, what, name = "click") => find(`#${id}`).addEventListener(name, what);
    on("gain", () => { this.viewer.gain = Number(find("#gain").value); this.viewer.draw(); }, "change");
    on("zoom", () => this.viewer.toggleFit());
    on("zoom-in", () => this.gestures.zoom(1.25));
    on("zoom-out", () => this.gestures.zoom(0.8));
    on("full", () => fullScreen(this));
    on("help-open", () => find("#help").showModal());
    find("#help button").addEventListener("click", () => find("#help").close());
    on("back", () => step(this, -1));
    on("forth", () => step(this, 1));
    on("play", () => play(this));
    on("loop", () => toggleLoop(this));
    on("sound", () => toggleSound(this));
    on("seek", () => seek(this, Number(find("#seek").value)), "input");
    on("run", () => this.start());
    on("close", () => close(this));
    on("theme", () => toggleTheme(() => this.curves.draw()));
    on("sheet-open", () => openSheet(this));
    on("save", () => saveFrame(this));
    on("tray-all", () => this.tray.downloadAll().catch((error) => this.fail(error)));
    on("tray-keep", () => this.places.open((path) => this.tray.keepAll(path).catch((error) => this.fail(error))));
    on("undo", () => { const { undo } = this; this.say(""); undo?.(); });
    find("#message-close").addEventListener("click", () => this.say(""));
    document.addEventListener("fullscreenchange", () => this.viewer.resize());
    watchLeaving(this);
    setInterval(() => this.beat(), HEARTBEAT);
  }

  async begin() {
    sayModel(CONFIG.model);
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

  async beat() {
    if (this.run.isRunning || this.link.isLost) return;
    try {
      const state = await this.refresh();
      if (this.state.result && !state.result && !this.run.isRunning) {
        this.forgetResult();
        this.say("The result has expired; restore the clip again.", "note");
      }
    } catch (error) { if (error instanceof GoneError) lostVisitor(this); }
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
    sayModel(model.name);
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
    hold(this.link.token, clip?.name ?? "", Boolean(state.job));
    this.size.opened(clip);
    this.controls.planned("", null);  // what was said is of another clip
    this.source.rest(Boolean(clip));
    this.tray.draw();
    find("#drop").hidden = find("#others").hidden = Boolean(clip);
    find("#opened").hidden = !clip;
    find(".studio").dataset.phase = clip ? "clip" : "empty";
    find("#run").disabled = find("#sheet-open").disabled = !clip;
    this.run.show(isSame ? state.job : null);
    find("#run").disabled = !clip;
    this.strip.open(clip).then(() => thumb(this)).catch(() => {});
    if (!clip) { where(this, 0, 0); this.settled(); return; }
    find("#clip-name").textContent = clip.name;
    find("#clip-name").title = clip.name;
    find("#facts").textContent = clip.facts.join(" · ");
    find("#deinterlace-label").hidden = clip.kind !== "video";
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
    show(this, "preview");
    this.settled();
  }

  // Whether what is made, or waits, has other settings than the controls say.
  compareSettings() { const settings = this.controls.ofClip; this.results.compare(settings); this.run.compare(settings, this.state.result); }

  settings() { return this.controls.values; }

  applySettings(settings) {
    this.controls.put(settings);
    this.viewer.strength = this.steering.strength;
  }

  // Anything but the scales changed: plan and preview follow.
  settled() {
    this.motion.stop();
    this.compareSettings();
    this.controls.words();
    this.controls.planSoon();
    this.render();
  }

  steered() {
    this.motion.stop();
    show(this, "preview");
    this.compareSettings();
    this.controls.remember();
    this.render();
  }

  mixed(strength) {
    this.viewer.strength = this.showing === "preview" ? strength : 1;
    if (this.showing !== "preview") show(this, "preview");
    this.compare.restored(this.compare.share);
    this.compareSettings();
    this.controls.remember();
  }

  render() {
    const { clip } = this.state;
    if (!clip) return;
    if (this.showing === "preview") where(this, this.frame, clip.frames, this.frame / clip.fps, 0);
    this.motion.stop();
    this.preview.want(clip, this.frame, this.settings()).then(() => {
      if (!this.state.model?.loaded) this.beat();
      if (!this.run.isRunning) this.controls.planSoon();  // the preview says how fast this clip is
    });
  }

  previewAt(second) {
    const { clip } = this.state;
    this.frame = clamp(Math.floor(second * clip.fps + 0.5), 0, clip.frames - 1);
    show(this, "preview");
    this.render();
  }

  followSoon() {
    if (this.showing !== "preview") return;
    clearTimeout(this.followTimer);
    this.followTimer = setTimeout(() => {
      if (this.viewer.source && this.preview.follow(this.viewer.seen())) this.render();
    }, 160);
  }

  async start() {
    this.say("");
    this.motion.stop();
    try { await keepResult(this); } catch (error) { this.fail(error); return; }
    this.compare.forgetOther();
    this.forgetResult();
    await this.run.start(this.settings());
    if (this.run.isRunning) hold(this.link.token, undefined, true);
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
    if (result.disabled) { result.disabled = false; result.textContent = "Running"; show(this, "result"); }
    if (this.showing !== "result") return;
    this.viewer.show(this.newest);
    where(this, frame - 1, job.frames ?? frame, (frame - 1) / clip.fps, Math.round((job.settings.start ?? 0) * clip.fps));
    find("#seek").disabled = find("#back").disabled = find("#forth").disabled = true;
  }

  async ended(state) {
    this.newest = null;
    if (!state.result) {
      const { job } = state;
      this.forgetResult();
      this.apply({ ...state, result: null });
      if (job?.error) this.say(job.error, job.stage === "stopped" ? "note" : "error");
      focusAfterRun(this, false);
      this.render();
      return;
    }
    this.apply(state);
    this.run.show(state.job);
    this.results.offer(state.result);
    this.compareSettings();
    this.controls.planSoon();
    focusAfterRun(this, true);
    if (state.model.prompts && !this.scenes.starts.length) this.scenes.put(state.result.scenes);
    try {
      await this.player.load(state.result);
    } catch (error) { this.fail(error); return; }
    if (this.player.result !== state.result) return;  // another clip or run came meanwhile
    const button = find("#shown [data-show=result]");
    button.disabled = false;
    button.textContent = "Result";
    show(this, "result");
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
    show(this, "preview");
    this.compareSettings();
  }

  fail(error) {
    if (error instanceof GoneError) { lostVisitor(this).catch(() => {}); return; }
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
