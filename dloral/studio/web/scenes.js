// One prompt a scene, as a model that reads will be told: found by the tagger, changed by a person.

import { all, find } from "./dom.js";
import { fraction } from "./words.js";

const SCENES_POLL = 400;  // ms

export class Scenes {
  // ``look()``: {clip, settings} of this moment.
  constructor(link, { look, onChange, onError }) {
    this.link = link;
    this.look = look;
    this.onChange = onChange;
    this.onError = onError;
    this.starts = [];
    find("#scenes-find").addEventListener("click", () => (this.isLooking ? this.stop() : this.find()));
    find("#scenes-forget").addEventListener("click", () => { this.put([]); this.onChange(); });
    this.put([]);
  }

  // As the server takes them; nothing where none were looked for.
  get values() {
    if (!this.starts.length) return {};
    const prompts = all("#scene-list input").map((input) => input.value);
    return { scenes: this.starts.map((start, index) => ({ start, prompt: prompts[index] })) };
  }

  put(scenes) {
    this.starts = scenes.map(({ start }) => start);
    find("#scene-list").replaceChildren(...scenes.map(({ prompt }) => {
      const label = document.createElement("label"), input = document.createElement("input");
      Object.assign(input, { type: "text", maxLength: 1000, value: prompt, title: prompt });
      input.addEventListener("change", () => { input.title = input.value; this.onChange(); });
      label.append(document.createElement("span"), input);
      return label;
    }));
    find("#prompt").disabled = scenes.length > 0;  // it is in every scene's prompt
    this.words();
  }

  words() {
    const { clip, settings } = this.look();
    const frame = (seconds) => Math.round(seconds * (clip?.fps ?? 1));
    const end = settings.duration === null ? clip?.frames ?? 0 : frame(settings.start + settings.duration);
    all("#scene-list label span").forEach((words, index) => {
      const first = Math.max(frame(fraction(this.starts[index])), frame(settings.start)) + 1;
      const last = index + 1 < this.starts.length ? frame(fraction(this.starts[index + 1])) : Math.min(end, clip?.frames ?? end);
      words.textContent = last > first ? `Frames ${first} to ${last}` : `Frame ${first}`;
    });
    find("#scenes-find").textContent = this.isLooking ? "Stop" : this.starts.length ? "Find again" : "Find scenes";
    find("#scenes-find").disabled = !clip;
    find("#scenes-forget").hidden = this.isLooking || !this.starts.length;
  }

  async find() {
    const { settings } = this.look();
    this.put([]);
    try {
      this.follow(await this.link.call("POST", "scenes", { body: { settings: { ...settings, scenes: undefined } } }));
    } catch (error) { this.onError(error); }
  }

  // From a state that holds a search: watch it until it ends.
  async follow(state) {
    if (this.isLooking || state.search?.stage !== "looking") return;
    this.isLooking = true;
    let { search } = state;
    try {
      while (search?.stage === "looking") {
        this.put(search.scenes);
        await new Promise((resolve) => setTimeout(resolve, SCENES_POLL));
        ({ search } = await this.link.call("GET", "state"));
      }
    } catch (error) { this.onError(error); } finally { this.isLooking = false; }
    this.put(search?.stage === "done" ? search.scenes : []);
    if (search?.error) this.onError(search.error);
    this.onChange();
  }

  async stop() {
    find("#scenes-find").disabled = true;
    try { await this.link.call("DELETE", "scenes"); } catch (error) { this.onError(error); }
  }
}
