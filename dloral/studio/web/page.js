// The page: what is open, what is shown, and who is told of what.

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
    this.strip = new Strip(this.link, { onTrim: (second) => { this.controls.planSoon(); this.previewAt(second); }, onSeek: (second) => this.toSecond(second) });
    this.scenes = new Scenes(this.link, {
      look: () => ({ clip: this.state.clip, settings: this.controls?.values ?? { start: 0, duration: null } }),
      onChange: () => this.settled(), onError: (error) => this.fail(error),
    });
    this.models = new ModelMenu(this.link, () => this.refresh().catch((error) => this.fail(error)));
    this.controls = new Controls(this.link, { steering: this.steering, strip: this.strip, scenes: this.scenes }, {
      look: () => ({ ...this.state, frame: this.frame, isRunning: this.run?.isRunning }),
      onChange: () => this.settled(), onGone: () => this.lostVisitor(),
    });
    this.curves = new Curves(this.link, (index) => { this.show("result"); this.player.pause(); this.player.seek(index); });
    this.results = new Results(this.link, this.curves, (error) => this.fail(error));
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
    on("run", () => this.start());
    on("close", () => this.close());
    on("theme", () => toggleTheme(() => this.curves.draw()));
    on("sheet-open", () => this.openSheet());
    find("#message button").addEventListener("click", () => this.say(""));
    document.addEventListener("fullscreenchange", () => this.viewer.resize());
    window.addEventListener("pagehide", () => this.link.leave());
    setInterval(() => this.beat(), HEARTBEAT);
  }

  async begin() {
    find("#model-name").textContent = shortName(CONFIG.model);
    this.controls.recall();
    this.viewer.strength = this.steering.strength;
    this.controls.words();
    this.viewer.show(null);
    try {
      await this.link.open();
      this.restored(await this.link.call("GET", "state").catch(async (error) => {
        if (!(error instanceof GoneError)) throw error;
        await this.link.open(true);
        return this.link.call("GET", "state");
      }));
      await this.models.open();
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
    if (this.takeModel(state.model)) this.settled();
  }

  // Whether what is shown was made by another model: somebody changed it, or it is loaded now.
  takeModel(model) {
    const before = this.model ?? { name: CONFIG.model };
    this.model = this.state.model = model;
    find("#model-name").textContent = shortName(model.name);
    find("#prompt-label").hidden = find("#scenes").hidden = !model.prompts;
    if (before.name === model.name && (before.vae ?? model.vae) === model.vae) return before.prompts !== undefined && before.prompts !== model.prompts;
    if (this.models.inUse !== undefined && (this.models.inUse !== model.name || this.models.vaeInUse !== model.vae)) this.models.open();
    return true;
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
      else this.strip.set(this.controls.remembered ?? {});
    } else {
      find("#scale").value = clip.suggested.scale;
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

  async close() {
    if (this.run.isRunning && !window.confirm("Stop restoring and close the clip?")) return;
    try { this.opened(await this.link.call("DELETE", "clip")); } catch (error) { this.fail(error); }
  }

  // Settings --------------------------------------------------------------------------------

  settings() { return this.controls.values; }

  applySettings(settings) {
    this.controls.put(settings);
    this.viewer.strength = this.steering.strength;
  }

  // Anything but the scales changed: plan and preview follow.
  settled() {
    this.controls.words();
    this.controls.planSoon();
    this.render();
  }

  steered() { this.show("preview"); this.controls.remember(); this.render(); }

  mixed(strength) {
    this.viewer.strength = this.showing === "preview" ? strength : 1;
    if (this.showing !== "preview") this.show("preview");
    this.viewer.draw();
    this.controls.remember();
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
    this.results.offer(state.result);
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

recallTheme();
window.studioPage = new StudioPage();  // for tests, and for whoever looks at it in the console
window.studioPage.begin();
