// The menu of models: what one would download is said first, then done, and can be stopped.

import { fillBar, find } from "./dom.js";
import { GoneError, LostError } from "./link.js";
import { CONFIG } from "./mount.js";
import { bytesWords, modelWords, shortName } from "./words.js";

const MODEL_POLL = 400;  // ms between two looks at a change that is going on
const CHANGED = ["done", "stopped", "failed"];

// In the header, which cuts a long name off; the title has all of it.
/** @param {string} name */
export const sayModel = (name) => {
  Object.assign(find("#model-name"), { textContent: modelWords(name), title: `Current model: ${shortName(name)}` });
};

export class ModelMenu {
  constructor(link, onChanged) {
    this.link = link;
    this.onChanged = onChanged;
    this.asked = 0;
    this.select = find("#model");
    this.box = find("#offer");
    this.more = find("#offer-more input");
    this.vae = find("#vae");
    for (const select of [this.select, this.vae]) select.addEventListener("change", () => this.choose());
    this.more.addEventListener("change", () => this.ask());
    find("#offer-take").addEventListener("click", () => this.take());
    find("#offer-leave").addEventListener("click", () => (this.isChanging ? this.stop() : this.leave()));
  }

  // Where others can reach the page it has no menu, or the server refuses it.
  async open() {
    if (!CONFIG.hasMenu) return;
    let found;
    try { found = await this.link.call("GET", "models"); } catch { return; }
    find("#model-menu").hidden = false;
    this.list(found);
    if (this.isChanging) this.follow();
  }

  get chosen() { return this.models.find((model) => model.name === this.select.value); }

  list({ in_use: inUse, vae, takes_tiny_vae: takesTinyVae, tiny_vae: tinyVae, models, change }) {
    this.inUse = inUse;
    this.vaeInUse = vae;
    this.tinyVae = tinyVae;
    this.models = models;
    this.change = change;
    this.isChanging = Boolean(change) && !CHANGED.includes(change.stage);
    const kept = this.isChanging ? change.name : this.box.hidden ? inUse : this.select.value;
    this.select.replaceChildren(...models.map((model) => {
      const size = model.here ? "" : ` · about ${bytesWords(model.download)} to download`;
      return new Option(shortName(model.name) + size, model.name);
    }));
    this.select.value = kept;
    if (this.box.hidden) this.vae.value = vae;
    this.select.disabled = this.vae.disabled = this.isChanging;
    find("#vae-label").hidden = !takesTinyVae;
  }

  choose() {
    this.asked += 1;
    const { name, vae } = this.wanted;
    if (name === this.inUse && vae === this.vaeInUse) this.leave();
    else if (this.chosen.here && (vae === "auto" || this.tinyVae.here)) this.take();
    else { this.more.checked = true; this.ask(); }
  }

  // As the server takes it. Another model begins with its own encoder and decoder.
  get wanted() {
    const { name, companions } = this.chosen;
    return {
      name, vae: name === this.inUse ? this.vae.value : "auto",
      without: this.more.checked ? [] : companions.map((companion) => companion.name),
    };
  }

  // What would come, from where and how large; nothing comes yet.
  async ask() {
    const own = ++this.asked, isTiny = this.wanted.vae !== "auto", { name } = this.chosen;
    const { text, companions } = isTiny ? { ...this.tinyVae, companions: [] } : this.chosen;
    const said = companions.map((companion) => companion.text).join(", ");
    find("#offer-more span").textContent = `with ${said}`;
    this.say(`Asking the Hub about ${name} …`, { isSure: false, hasMore: companions.length > 0 });
    try {
      const plan = await this.link.call("POST", "models/plan", { body: this.wanted });
      if (own !== this.asked) return;
      const lines = [isTiny ? text : `${name}, ${text}`, `${plan.download} to download; ${plan.disk} of disk space needed meanwhile`,
        `From ${plan.sources.join(", ")}`, `Licences: ${plan.licences.join("; ")}`];
      this.say(lines.join("\n"), { take: `Download ${plan.download}`, hasMore: companions.length > 0 });
    } catch (error) {
      if (own === this.asked) this.fail(error);
    }
  }

  async take() {
    try {
      this.list(await this.link.call("POST", "models", { body: this.wanted }));
    } catch (error) { this.fail(error); return; }
    await this.follow();
  }

  async follow() {
    if (this.isFollowing) return;
    this.isFollowing = true;
    try {
      while (this.isChanging) {
        this.progress(this.change);
        await new Promise((resolve) => setTimeout(resolve, MODEL_POLL));
        this.list(await this.link.call("GET", "models"));
      }
      if (this.change?.stage === "done") { this.leave(); this.onChanged(); }
      else if (this.change) this.say(this.change.error, { take: "Try again" });
    } catch (error) { this.fail(error); } finally { this.isFollowing = false; }
  }

  progress({ name, stage, what, done, total }) {
    const words = {
      asking: `Asking the Hub about ${name} …`,
      downloading: `Downloading ${what}: ${bytesWords(done)} of ${bytesWords(total)}`,
      converting: `Converting ${what} …`,
      loading: `Loading ${shortName(name)} …`,
      stopping: "Stopping …",
    }[stage];
    this.say(words, { take: null, leave: "Cancel", bar: stage === "downloading" ? done / Math.max(total, 1) : null });
    find("#offer-leave").disabled = stage === "stopping";
  }

  async stop() {
    find("#offer-leave").disabled = true;
    try { this.list(await this.link.call("DELETE", "models")); } catch (error) { this.fail(error); }
  }

  leave() {
    this.asked += 1;
    this.box.hidden = true;
    this.select.value = this.inUse;
    this.vae.value = this.vaeInUse;
  }

  fail(error) {
    if (error instanceof LostError || error instanceof GoneError) return;  // the page says so
    this.isChanging = this.select.disabled = this.vae.disabled = false;
    this.say(error.message, { take: "Try again" });
  }

  // ``bar``: 0 to 1, null while nobody knows, undefined for none. ``take``: null for no button.
  /** @param {string} text @param {{take?: string | null, leave?: string, isSure?: boolean, hasMore?: boolean, bar?: number | null}} options */
  say(text, { take = "Download", leave = "Not now", isSure = true, hasMore = false, bar } = {}) {
    this.box.hidden = false;
    find("#offer-says").textContent = text;
    find("#offer-more").hidden = !hasMore;
    const button = find("#offer-take");
    button.hidden = take === null;
    button.disabled = !isSure;
    button.textContent = take ?? "";
    find("#offer-leave").textContent = leave;
    find("#offer-leave").disabled = false;
    find("#offer .bar").hidden = bar === undefined;
    fillBar(find("#offer .bar"), bar ?? null);
  }
}
