// The page: what is open, what is shown, and who is told of what.

const SELECTS = ["format", "bit_depth", "window", "color_fix", "tile", "crf"];
const MEMORY = "dloral-settings";   // of this tab, so that a reload finds the controls as they were
const PLAN_AFTER = 120;             // ms after the last change

class StudioPage {
  constructor() {
    this.state = { clip: null, job: null, result: null };
    this.frame = 0;           // of the source, that is previewed
    this.showing = "preview";
    this.link = new Link(() => { find("#lost").hidden = false; }, (state) => this.back(state));
    this.viewer = new Viewer(find("#stage"));
    this.preview = new Preview(this.link, this.viewer);
    this.player = new Player(this.viewer, find("#stage video"), this.link);
    this.steering = new Steering(() => this.steered(), (strength) => this.mixed(strength));
    this.sheet = new Sheet(this.link, (scales) => this.steering.set(scales));
    this.strip = new Strip(this.link, { onTrim: (second) => { this.planSoon(); this.previewAt(second); }, onSeek: (second) => this.toSecond(second) });
    this.curves = new Curves(this.link, (index) => { this.show("result"); this.player.pause(); this.player.seek(index); });
    this.run = new Run(this.link, {
      onLatest: (picture, frame, job) => this.latest(picture, frame, job),
      onEnd: (state) => this.ended(state),
      onError: (error) => this.fail(error),
    });
    this.source = new Source(this.link, {
      onClip: (state) => this.opened(state),
      onSettings: (settings, name) => { this.applySettings(settings); this.say(`Settings of ${name} are back.`, "note"); this.settled(); },
      onError: (error) => this.fail(error),
      isBusy: () => this.run.isRunning,
    });
    this.gestures = new Gestures(this.viewer, {
      step: (by) => this.step(by), seek: (index) => this.seek(index), play: () => this.play(),
      full: () => this.fullScreen(), loop: () => this.toggleLoop(), sound: () => this.toggleSound(),
      help: () => find("#help").showModal(),
    });
    this.preview.onBusy = (isBusy) => { find("#busy").textContent = isBusy ? "rendering" : ""; };
    this.preview.onError = (error) => this.fail(error);
    this.viewer.onMove = () => this.followSoon();
    this.player.onFrame = (index) => this.where(index, this.player.times.length, this.player.times[index], this.state.result.first_frame);
    this.player.onState = (isPlaying) => this.playing(isPlaying);
    this.bind();
  }

  bind() {
    all("#modes button").forEach((button) => button.addEventListener("click", () => this.viewer.setMode(button.dataset.mode)));
    all("#shown button").forEach((button) => button.addEventListener("click", () => this.show(button.dataset.show)));
    all(".segments").forEach((group) => group.addEventListener("keydown", (event) => segmentKey(event, group)));
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
    on("scale", () => this.settled(), "input");
    for (const name of [...SELECTS, "prompt"]) on(name, () => this.settled(), "change");
    on("run", () => this.start());
    on("close", () => this.close());
    on("theme", () => toggleTheme(() => this.curves.draw()));
    on("sheet-open", () => this.openSheet());
    on("measures-open", () => this.toggleMeasures());
    for (const layout of ["side", "wipe"]) on(`compare-${layout}`, (event) => this.comparison(layout, event.currentTarget));
    find("#message button").addEventListener("click", () => this.say(""));
    document.addEventListener("fullscreenchange", () => this.viewer.resize());
    window.addEventListener("pagehide", () => this.link.leave());
    setInterval(() => this.beat(), HEARTBEAT);
  }

  async begin() {
    find("#model-name").textContent = CONFIG.model.split("/").pop();
    this.recall();
    this.words();
    this.viewer.show(null);
    try {
      await this.link.open();
      this.restored(await this.link.call("GET", "state").catch(async (error) => {
        if (!(error instanceof GoneError)) throw error;
        await this.link.open(true);
        return this.link.call("GET", "state");
      }));
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
  }

  async back(state) {
    find("#lost").hidden = true;
    if (!state) { await this.lostVisitor(); return; }
    this.restored(state);
  }

  async lostVisitor() {
    await this.link.open(true);
    this.opened(await this.link.call("GET", "state"));
    this.say("This page was away for too long, and its files are gone. Drop the clip again.", "note");
  }

  async beat() {
    if (this.run.isRunning || this.link.isLost) return;
    try {
      const state = await this.link.call("GET", "state");
      if (this.state.result && !state.result && !this.run.isRunning) {
        this.forgetResult();
        this.say("The result has expired and is gone; restore the clip again.", "note");
      }
    } catch (error) { if (error instanceof GoneError) this.lostVisitor(); }
  }

  apply(state) {
    this.state = state;
    find("#prompt-label").hidden = !state.model.prompts;
  }

  // A clip was opened, or there is none any more.
  opened(state, isSame = false) {
    this.say("");
    this.forgetResult();
    this.preview.forget();
    this.viewer.show(null);
    this.apply({ ...state, result: null });
    const { clip } = state;
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
    find("#format").disabled = clip.kind === "image";
    if (isSame) {
      if (state.job) this.applySettings(state.job.settings);
      else this.strip.set(this.remembered ?? {});
    } else {
      find("#scale").value = clip.suggested.scale;
      this.strip.set({ start: 0, duration: clip.suggested.duration });
    }
    this.frame = isSame ? clamp(this.remembered?.frame ?? 0, 0, clip.frames - 1) : 0;
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

  async close() {
    if (this.run.isRunning && !window.confirm("Stop restoring and close the clip?")) return;
    try { this.opened(await this.link.call("DELETE", "clip")); } catch (error) { this.fail(error); }
  }

  // Settings --------------------------------------------------------------------------------

  settings() {
    const choice = (name) => find(`#${name}`).value;
    const tile = choice("tile");
    return {
      scale: Number(choice("scale")), ...this.steering.values, ...this.strip.values,
      window: Number(choice("window")), color_fix: choice("color_fix"),
      tile: ["auto", "none"].includes(tile) ? tile : Number(tile),
      crf: choice("crf") === "" ? null : Number(choice("crf")), bit_depth: Number(choice("bit_depth")),
      format: choice("format"), prompt: this.state.model?.prompts ? find("#prompt").value : "",
    };
  }

  applySettings(settings) {
    this.steering.set(settings, true);
    this.viewer.strength = this.steering.strength;
    const put = { ...settings, tile: settings.tile ?? "none", crf: settings.crf ?? "" };
    for (const name of ["scale", "prompt", ...SELECTS]) {
      if (put[name] === undefined) continue;
      const control = find(`#${name}`), value = String(put[name]);
      if (control.tagName === "SELECT" && ![...control.options].some((option) => option.value === value)) control.add(new Option(value, value));
      control.value = value;
    }
    this.strip.set(settings);
  }

  remember() {
    sessionStorage.setItem(MEMORY, JSON.stringify({ ...this.settings(), frame: this.frame }));
  }

  recall() {
    try { this.remembered = JSON.parse(sessionStorage.getItem(MEMORY)); } catch { this.remembered = null; }
    if (this.remembered) this.applySettings(this.remembered);
  }

  // Anything but the scales changed: plan and preview follow.
  settled() {
    this.words();
    this.planSoon();
    this.render();
  }

  steered() { this.show("preview"); this.remember(); this.render(); }

  mixed(strength) {
    this.viewer.strength = this.showing === "preview" ? strength : 1;
    if (this.showing !== "preview") this.show("preview");
    this.viewer.draw();
    this.remember();
  }

  words() {
    const scale = Number(find("#scale").value), { clip } = this.state;
    find("output[for=scale]").textContent = clip
      ? `${scale} × → ${Math.round(clip.width * scale)} × ${Math.round(clip.height * scale)}` : `${scale} ×`;
  }

  planSoon() {
    this.remember();
    clearTimeout(this.planTimer);
    this.planTimer = setTimeout(() => this.plan(), PLAN_AFTER);
  }

  async plan() {
    if (!this.state.clip) { find("#plan").textContent = ""; find("#warning").hidden = true; return; }
    try {
      const { words, warning } = await this.link.call("POST", "plan", { body: { settings: this.settings() } });
      find("#plan").textContent = words.join(" · ");
      find("#warning").textContent = warning ?? "";
      find("#warning").hidden = !warning;
      find("#run").disabled = this.run.isRunning;
    } catch (error) {
      if (!(error instanceof RefusedError)) { if (error instanceof GoneError) this.lostVisitor(); return; }
      find("#plan").textContent = "";
      find("#warning").textContent = error.message;
      find("#warning").hidden = false;
      find("#run").disabled = true;
    }
  }

  // Preview and result ----------------------------------------------------------------------

  render() {
    const { clip } = this.state;
    if (!clip) return;
    if (this.showing === "preview") this.where(this.frame, clip.frames, this.frame / clip.fps, 0);
    this.preview.want(clip, this.frame, this.settings()).then(() => { if (!this.state.model?.loaded) this.beat(); });
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
    all("#shown button").forEach((button) => button.setAttribute("aria-checked", String(button.dataset.show === what)));
    const isPreview = what === "preview";
    this.viewer.strength = isPreview ? this.steering.strength : 1;
    const isPlayable = !isPreview && Boolean(this.state.result) && !this.state.result.image;
    for (const name of ["play", "loop"]) find(`#${name}`).disabled = !isPlayable;
    find("#sound").hidden = !isPlayable || !this.state.result.sound;
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
    this.remember();
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
    find("#where").textContent = count ? `Frame ${index + 1} of ${count} · ${time.toFixed(2)} s` : "";
    for (const name of ["back", "forth"]) find(`#${name}`).disabled = count < 2;
    if (this.state.clip) this.strip.now((index + first) / this.state.clip.fps);
    if (this.showing === "result" && this.state.result) this.curves.at(index);
  }

  // Runs ------------------------------------------------------------------------------------

  async start() {
    this.say("");
    this.forgetResult();
    await this.run.start(this.settings());
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
    this.offer(state.result);
    try {
      await this.player.load(state.result);
    } catch (error) { this.fail(error); return; }
    const button = find("#shown [data-show=result]");
    button.disabled = false;
    button.textContent = "Result";
    this.show("result");
    this.curves.load(state.result).catch(() => {});
  }

  offer(result) {
    find("#results").hidden = false;
    const download = find("#download");
    download.href = this.link.url(`files/${result.file}`, { download: 1 });
    download.download = result.file;
    download.textContent = `Download ${bytesWords(result.bytes)}`;
    download.title = result.file;
    const settings = find("#settings-file");
    settings.href = this.link.url(`files/${result.settings_file}`, { download: 1 });
    settings.download = result.settings_file;
    for (const layout of ["side", "wipe"]) find(`#compare-${layout}`).hidden = result.image;
    find("#measures-open").hidden = result.image;
    find("#notes").textContent = result.notes.join("; ");
    find("#notes").hidden = !result.notes.length;
  }

  forgetResult() {
    this.player.shown(false);
    this.player.unload();
    this.newest = null;
    this.state = { ...this.state, result: null };
    find("#results").hidden = true;
    const button = find("#shown [data-show=result]");
    button.disabled = true;
    button.textContent = "Result";
    this.show("preview");
  }

  toggleMeasures() {
    const button = find("#measures-open"), isOpen = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(isOpen));
    find("#measures").hidden = !isOpen;
    this.curves.draw();
  }

  async comparison(layout, button) {
    const words = button.textContent;
    button.disabled = true;
    button.textContent = "Writing …";
    try {
      const { file } = await this.link.call("POST", "comparison", { parameters: { layout } });
      const link = document.createElement("a");
      link.href = this.link.url(`files/${file}`, { download: 1 });
      link.download = file;
      link.click();
    } catch (error) { this.fail(error); } finally {
      button.disabled = false;
      button.textContent = words;
    }
  }

  async openSheet() {
    this.show("preview");
    const seen = this.viewer.source ? this.viewer.seen() : { x: 0, y: 0, width: 1, height: 1 };
    try {
      await this.sheet.open(this.frame, this.settings(), { x: seen.x + seen.width / 2, y: seen.y + seen.height / 2 });
    } catch (error) { this.sheet.dialog.close(); this.fail(error); }
  }

  // Words -----------------------------------------------------------------------------------

  fail(error) {
    if (error instanceof GoneError) { this.lostVisitor().catch(() => {}); return; }
    if (error instanceof LostError) return;  // the banner says so
    if (!(error instanceof RefusedError) && typeof error !== "string") console.error(error);
    this.say(typeof error === "string" ? error : error.message, "error");
  }

  say(text, kind = "error") {
    const message = find("#message");
    message.hidden = !text;
    message.className = kind;
    message.setAttribute("role", kind === "error" ? "alert" : "status");
    message.firstElementChild.textContent = text;
  }
}

// A press on an arrow goes to the next choice of a group, as radio buttons do.
const segmentKey = (event, group) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const buttons = [...group.querySelectorAll("button:not(:disabled)")];
  const next = buttons[(buttons.indexOf(document.activeElement) + by + buttons.length) % buttons.length];
  next.focus();
  next.click();
};

// Fill a small canvas with the picture, or its first ``width`` pixels.
const cover = (context, picture, width = picture.width) => {
  const { canvas } = context, scale = Math.max(canvas.width / width, canvas.height / picture.height);
  const w = canvas.width / scale, h = canvas.height / scale;
  context.drawImage(picture, (width - w) / 2, (picture.height - h) / 2, w, h, 0, 0, canvas.width, canvas.height);
};

const bytesWords = (bytes) => bytes < 1e6 ? `(${Math.max(1, Math.round(bytes / 1e3))} kB)` : `(${(bytes / 1e6).toFixed(1)} MB)`;

const toggleTheme = (after) => {
  const isDark = document.body.classList.toggle("dark");
  localStorage.setItem("dloral-theme", isDark ? "dark" : "light");
  after();
};
const kept = new URLSearchParams(location.search).get("__theme") ?? localStorage.getItem("dloral-theme");
if (kept === "dark" || kept === "light") document.body.classList.toggle("dark", kept === "dark");

window.studioPage = new StudioPage();  // for tests, and for whoever looks at it in the console
window.studioPage.begin();
