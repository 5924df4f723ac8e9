// Starting, watching and stopping a restoration.

const POLL = 250;           // ms between two looks at a running job
const HEARTBEAT = 15000;    // and when nothing runs, so that the server knows of us
const RUNNING = ["waiting", "loading", "looking", "restoring", "writing"];

class Run {
  constructor(link, { onLatest, onEnd, onError }) {
    Object.assign(this, { link, onLatest, onEnd, onError });
    this.job = null;
    this.latest = -1;
    find("#cancel").addEventListener("click", () => this.cancel());
  }

  get isRunning() { return Boolean(this.job) && RUNNING.includes(this.job.stage); }

  async start(settings) {
    find("#run").disabled = true;
    try {
      this.follow(await this.link.call("POST", "job", { body: { settings } }));
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
        await new Promise((resolve) => setTimeout(resolve, POLL));
        const state = await this.link.call("GET", "state");
        this.show(state.job);
        if (!this.isRunning) this.onEnd(state);
        else if (state.job.frame > this.latest) await this.fetchLatest();
      }
    } catch (error) {
      if (!(error instanceof LostError)) this.onError(error);
    } finally {
      this.isWatching = false;
    }
  }

  async fetchLatest() {
    const found = await this.link.call("GET", "latest");
    if (!found.blob) return;
    this.latest = Number(found.headers.get("x-frame"));
    const picture = await pictureFrom(found.blob);
    if (this.isRunning) this.onLatest(picture, this.latest, this.job);
  }

  async cancel() {
    find("#cancel").disabled = true;
    find("#said").textContent = "Stopping …";
    try { await this.link.call("DELETE", "job"); } catch (error) { this.onError(error); }
  }

  show(job) {
    this.job = job;
    const isRunning = this.isRunning;
    find(".studio").dataset.running = String(isRunning);
    find("#run").hidden = isRunning;
    find("#run").disabled = isRunning;
    find("#cancel").hidden = !isRunning;
    if (!isRunning) find("#cancel").disabled = false;
    find("#progress").hidden = !isRunning;
    if (!isRunning) return;
    const share = job.stage === "writing" ? 1 : job.stage === "restoring" && job.frames ? job.frame / job.frames : null;
    fillBar(find("#progress .bar"), share);
    if (!find("#cancel").disabled) find("#said").textContent = this.words(job);
  }

  words(job) {
    if (job.stage === "waiting") {
      if (!job.before) return "Starting …";
      return job.before === 1 ? "One clip is before yours" : `${job.before} clips are before yours`;
    }
    if (job.stage === "loading") return "Reading the clip …";
    if (job.stage === "looking") return `Looking at the scenes, ${job.scenes.length} so far …`;
    if (job.stage === "writing") return "Writing the last frames and the sound …";
    const parts = [`Restoring ${job.frame}${job.frames ? ` of ${job.frames}` : ""}`];
    if (job.rate) parts.push(`${job.rate >= 10 ? job.rate.toFixed(0) : job.rate.toFixed(1)} frames/s`);
    if (job.left !== null) parts.push(`${timeWords(job.left)} left`);
    return parts.join(" · ");
  }
}
