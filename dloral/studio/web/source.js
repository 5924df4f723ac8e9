// Where a clip comes from: dropped, chosen, recorded, an example; or a settings file.

import { all, find, movesLittle } from "./dom.js";
import { ROOT, RefusedError } from "./link.js";
import { CONFIG, element } from "./mount.js";

const WEBCAM_SECONDS = 3;

const EXAMPLE_WORDS = {
  people: "People", butterfly: "An animal and leaves", film: "An old film", city: "A city at night",
};

export class Source {
  constructor(link, { onClip, onFiles, onSettings, onError, leaveClip }) {
    this.link = link;
    this.onClip = onClip;
    this.onFiles = onFiles;
    this.onSettings = onSettings;
    this.onError = onError;
    this.leaveClip = leaveClip;
    const input = find("#file");
    input.addEventListener("change", () => {
      this.takeAll([...input.files]);
      input.value = "";
    });
    find("#choose").addEventListener("click", () => input.click());
    if (CONFIG.isLocal) find("#choose span").append(" Nothing leaves this machine.");
    let depth = 0;  // dragging over a child leaves its parent
    const drags = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    element.addEventListener("dragenter", (event) => { if (drags(event)) { depth += 1; element.classList.add("dragging"); } });
    element.addEventListener("dragleave", (event) => { if (drags(event) && --depth <= 0) { depth = 0; element.classList.remove("dragging"); } });
    element.addEventListener("dragover", (event) => { if (drags(event)) event.preventDefault(); });
    element.addEventListener("drop", (event) => {
      if (!drags(event)) return;
      event.preventDefault();
      depth = 0;
      element.classList.remove("dragging");
      this.takeAll([...event.dataTransfer.files]);
    });
    find("#upload-stop").addEventListener("click", () => this.sending?.stop());
    this.showExamples();
    this.showWipe();
    const webcam = find("#webcam");
    webcam.hidden = !navigator.mediaDevices?.getUserMedia || !window.MediaRecorder;
    webcam.addEventListener("click", () => this.record(webcam));
  }

  showExamples() {
    find("#examples").replaceChildren(...CONFIG.examples.map((name) => {
      const button = document.createElement("button"), picture = document.createElement("img"), words = document.createElement("span");
      button.type = "button";
      button.id = `example-${name}`;
      button.title = "A short sample clip; left: before, right: after";
      words.textContent = EXAMPLE_WORDS[name] ?? name;
      if (CONFIG.pictures.includes(name)) {
        Object.assign(picture, { src: `${ROOT}/studio/web/pictures/${name}.webp`, alt: "", width: 160, height: 90, loading: "lazy" });
        button.append(picture);
      }
      button.append(words);
      button.addEventListener("click", () => this.openExample(name));
      return button;
    }));
    find("#others h2").hidden = !CONFIG.examples.length;
  }

  // The first picture: a line that goes to and fro over an example, unless motion is unwelcome.
  showWipe() {
    const video = find("#wipe"), pause = find("#wipe-pause"), at = `${ROOT}/studio/web/pictures`;
    video.poster = `${at}/wipe.webp`;
    const toggle = (plays) => {
      if (plays) video.play().catch(() => {}); else video.pause();
      pause.textContent = plays ? "❚❚" : "▶";
      pause.setAttribute("aria-label", plays ? "Pause the animation" : "Play the animation");
    };
    video.src = `${at}/wipe.mp4`;
    video.addEventListener("error", () => { pause.hidden = true; });
    pause.addEventListener("click", () => toggle(video.paused));
    toggle(!movesLittle());
  }

  // Nobody watches it while there is a clip.
  rest(isResting) {
    const video = find("#wipe");
    if (isResting) video.pause();
    else if (!movesLittle()) video.play().catch(() => {});
  }

  openExample(name) {
    return this.openBy(() => this.link.call("POST", "example", { parameters: { name } }));
  }

  // ``call(token)``: what opens a clip in a visit.
  openBy(call) {
    return this.fetchState(async () => {
      await this.leaveClip();
      return call(this.link.token);
    });
  }

  /** @param {File[]} files */
  takeAll(files) {
    const settings = files.find((file) => /\.json$/i.test(file.name));
    if (settings) return this.takeSettings(settings);
    const usable = files.filter((file) => this.check(file));
    if (usable.length > 1) return this.onFiles(usable);
    return usable.length ? this.take(usable[0]) : undefined;
  }

  check(file) {
    if (file.size > CONFIG.maxUpload) {
      const size = (bytes) => `${Math.round(bytes / 1e6)} MB`;
      this.onError(`${file.name} is ${size(file.size)}; the limit here is ${size(CONFIG.maxUpload)}. Cut it, or restore it on the command line.`);
      return false;
    }
    if (!file.size) this.onError(`${file.name} is empty; choose a video or an image.`);
    return Boolean(file.size);
  }

  /** @param {File} file */
  take(file) {
    return this.openBy((token) => this.send(file, token));
  }

  // Upload a file to a visit, and say how far it is; the visit's state.
  async send(file, token) {
    const box = find("#upload");
    const told = (share) => {
      box.querySelector("progress").value = share;
      box.querySelector("span").textContent = share < 1 ? `Uploading, ${Math.floor(100 * share)} %` : "Checking the file …";
    };
    box.hidden = false;
    told(0);
    try {
      this.sending = this.link.send(file, file.name, told, token);
      return await this.sending.done;
    } finally {
      this.sending = null;
      box.hidden = true;
    }
  }

  async fetchState(call) {
    if (this.isWorking) return;
    this.isWorking = true;
    element.classList.add("opening");
    for (const button of all("#examples button")) button.disabled = true;
    try {
      this.onClip(await call());
    } catch (error) {
      this.onError(error);
    } finally {
      this.isWorking = false;
      element.classList.remove("opening");
      for (const button of all("#examples button")) button.disabled = false;
    }
  }

  async takeSettings(file) {
    try {
      if (file.size > 100000) throw new RefusedError(`${file.name} is not a DLoRAL settings file; drop one saved on this page.`);
      const { settings } = await this.link.call("POST", "settings", { body: file });
      this.onSettings(settings, file.name);
    } catch (error) {
      this.onError(error);
    }
  }

  async record(button) {
    button.disabled = true;
    const finder = find("#finder");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 320 }, height: { ideal: 240 } } });
      finder.srcObject = stream;
      finder.hidden = false;
      await finder.play();
      const type = ["video/webm;codecs=vp8", "video/webm", "video/mp4"].find((name) => MediaRecorder.isTypeSupported(name)) ?? "";
      const recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: 4e6 });
      const parts = [];
      recorder.ondataavailable = (event) => parts.push(event.data);
      const stopped = new Promise((resolve) => { recorder.onstop = resolve; });
      recorder.start();
      for (let left = WEBCAM_SECONDS; left > 0; left -= 1) {
        button.textContent = `Recording, ${left}`;
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
      recorder.stop();
      await stopped;
      await this.take(new File(parts, `webcam.${type.includes("mp4") ? "mp4" : "webm"}`));
    } catch (error) {
      this.onError(error instanceof RefusedError ? error : "The camera cannot be used; allow it in the browser, or drop a clip.");
    } finally {
      stream?.getTracks().forEach((track) => track.stop());
      finder.hidden = true;
      finder.srcObject = null;
      button.textContent = "Record with the camera";
      button.disabled = false;
    }
  }
}
