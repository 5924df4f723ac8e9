// Where a clip comes from: dropped, chosen, recorded, an example; or a settings file.

const WEBCAM_SECONDS = 3;

class Source {
  constructor(link, { onClip, onSettings, onError, onSay, isBusy }) {
    Object.assign(this, { link, onClip, onSettings, onError, onSay, isBusy });
    const input = find("#file");
    input.addEventListener("change", () => {
      if (input.files[0]) this.take(input.files[0]);
      input.value = "";
    });
    find("#drop").addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); input.click(); }
    });
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
      if (event.dataTransfer.files[0]) this.take(event.dataTransfer.files[0]);
    });
    find("#upload-stop").addEventListener("click", () => this.sending?.stop());
    find("#examples").replaceChildren(...CONFIG.examples.map((name) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "small";
      button.id = `example-${name}`;
      button.textContent = name;
      button.title = "A short clip that comes with the software";
      button.addEventListener("click", () => this.fetchState(() => this.link.call("POST", "example", { parameters: { name } })));
      return button;
    }));
    find("#others .muted").hidden = !CONFIG.examples.length;
    const webcam = find("#webcam");
    webcam.hidden = !navigator.mediaDevices?.getUserMedia || !window.MediaRecorder;
    webcam.addEventListener("click", () => this.record(webcam));
  }

  async take(file) {
    if (/\.json$/i.test(file.name)) return this.takeSettings(file);
    if (file.size > CONFIG.maxUpload) {
      const size = (bytes) => `${Math.round(bytes / 1e6)} MB`;
      return this.onError(`${file.name} has ${size(file.size)}; this page takes ${size(CONFIG.maxUpload)} at most. Cut it, or restore it on the command line.`);
    }
    if (!file.size) return this.onError(`${file.name} is empty; give a video or an image.`);
    await this.fetchState(async () => {
      const box = find("#upload");
      const told = (share) => {
        box.querySelector("progress").value = share;
        box.querySelector("span").textContent = share < 1 ? `Sending, ${Math.floor(100 * share)} %` : "Looking at it …";
      };
      box.hidden = false;
      told(0);
      try {
        this.sending = this.link.send(file, file.name, told);
        return await this.sending.done;
      } finally {
        this.sending = null;
        box.hidden = true;
      }
    });
  }

  async fetchState(call) {
    if (this.isWorking) return;
    if (this.isBusy() && !window.confirm("A clip is being restored. Stop it and take another?")) return;
    this.isWorking = true;
    element.classList.add("opening");
    try {
      this.onClip(await call());
    } catch (error) {
      this.onError(error);
    } finally {
      this.isWorking = false;
      element.classList.remove("opening");
    }
  }

  async takeSettings(file) {
    try {
      if (file.size > 100000) throw new RefusedError(`${file.name} is no settings file of ours; drop one that was saved here.`);
      const { settings } = await this.link.call("POST", "settings", { body: file });
      this.onSettings(settings, file.name);
    } catch (error) {
      this.onError(error);
    }
  }

  async record(button) {
    button.disabled = true;
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 320 }, height: { ideal: 240 } } });
      const type = ["video/webm;codecs=vp8", "video/webm", "video/mp4"].find((name) => MediaRecorder.isTypeSupported(name));
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
      this.onError(error instanceof RefusedError ? error : "The camera could not be used; allow it in the browser, or drop a clip.");
    } finally {
      stream?.getTracks().forEach((track) => track.stop());
      button.textContent = "Webcam";
      button.disabled = false;
    }
  }
}
