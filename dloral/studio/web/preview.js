// The live preview: one frame, or a part of it, pasted into its bicubic enlargement.

// One preview at a time is asked for; of the moves meanwhile only the newest counts.
class Preview {
  constructor(link, viewer) {
    this.link = link;
    this.viewer = viewer;
    this.centre = { x: 0.5, y: 0.5 };
    this.pixels = 0;      // of the previewed part; 0: what the server finds lively
    this.count = 0;       // of renderings shown, for whoever waits for the next
    this.isShown = true;
    this.onBusy = () => {};
    this.onError = () => {};
    this.forget();
  }

  forget() {
    this.wanted = this.drawn = this.canvas = this.region = null;
    this.centre = { x: 0.5, y: 0.5 };
    this.generation = (this.generation ?? 0) + 1;
  }

  // ``clip`` {width, height}, frame number, and settings as the server takes them.
  want(clip, frame, settings) {
    this.wanted = { clip, frame, settings };
    if (!this.running) this.running = this.run().finally(() => { this.running = null; });
    return this.running;
  }

  async run() {
    this.onBusy(true);
    try {
      while (this.wanted) {
        const { wanted, generation } = this;
        this.wanted = null;
        const grows = await this.make(wanted, generation);
        if (grows && !this.wanted && generation === this.generation) this.wanted = wanted;
      }
    } catch (error) {
      if (!(error instanceof LostError)) this.onError(error);
    } finally {
      this.onBusy(false);
    }
  }

  async make({ clip, frame, settings }, generation) {
    const size = { width: Math.max(1, Math.round(clip.width * settings.scale)), height: Math.max(1, Math.round(clip.height * settings.scale)) };
    const key = `${frame} ${settings.scale}`;
    if (this.drawn !== key) await this.background(key, frame, settings.scale, size, generation);
    const found = await this.link.call("POST", "preview", {
      body: { frame, settings: { ...settings, start: 0, duration: null }, pixels: this.pixels, ...this.centre },
    });
    if (generation !== this.generation || found.superseded) return false;
    const [x, y, width, height] = found.headers.get("x-region").split(" ").map(Number);
    const region = { x, y, width, height };
    const isNew = this.region?.key !== `${key} ${x} ${y} ${width} ${height}`;
    const [restored, bicubic] = await Promise.all([
      pictureFrom(found.blob),
      isNew ? this.bicubic(frame, settings.scale, region) : null,
    ]);
    if (generation !== this.generation) return false;
    this.region = { ...region, key: `${key} ${x} ${y} ${width} ${height}` };
    this.paste(restored, bicubic, region, size);
    this.seconds = Number(found.headers.get("x-seconds"));
    this.count += 1;
    element.dataset.previews = String(this.count);
    return found.headers.get("x-could-grow") === "1";
  }

  async background(key, frame, scale, size, generation) {
    const { blob } = await this.link.call("GET", "background", { parameters: { frame, scale } });
    const picture = await pictureFrom(blob);
    if (generation !== this.generation) return;
    const ratio = Math.min(1, 4096 / size.width, 4096 / size.height);
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(size.width * ratio));
    canvas.height = 2 * Math.max(1, Math.round(size.height * ratio));
    const context = canvas.getContext("2d");
    for (const half of [0, 1]) context.drawImage(picture, 0, half * canvas.height / 2, canvas.width, canvas.height / 2);
    this.canvas = canvas;
    this.full = size;
    this.drawn = key;
    this.region = null;
    this.present();
  }

  async bicubic(frame, scale, { x, y, width, height }) {
    const { blob } = await this.link.call("GET", "bicubic", { parameters: { frame, scale, x, y, width, height } });
    return pictureFrom(blob);
  }

  paste(restored, bicubic, { x, y, width, height }, size) {
    const context = this.canvas.getContext("2d"), half = this.canvas.height / 2;
    const ratio = this.canvas.width / size.width;
    const box = [x * ratio, y * ratio, width * ratio, height * ratio];
    if (bicubic) {
      // What an earlier part left is bicubic again.
      context.drawImage(this.canvas, 0, 0, this.canvas.width, half, 0, half, this.canvas.width, half);
      context.drawImage(bicubic, ...box);
    }
    context.drawImage(restored, box[0], box[1] + half, box[2], box[3]);
    this.present();
  }

  present() {
    if (!this.isShown || !this.canvas) return;
    this.viewer.show({
      picture: this.canvas, width: this.canvas.width, height: this.canvas.height / 2,
      fullWidth: this.full.width, fullHeight: this.full.height, region: this.region,
    });
  }

  shown(isShown) { this.isShown = isShown; this.present(); }

  // The viewer looks elsewhere: whether the previewed part should follow.
  follow(seen) {
    const { region, full } = this;
    if (!region || !full || (region.width >= full.width && region.height >= full.height)) return false;
    const middle = { x: seen.x + seen.width / 2, y: seen.y + seen.height / 2 };
    const isInside = middle.x * full.width >= region.x && middle.x * full.width <= region.x + region.width
      && middle.y * full.height >= region.y && middle.y * full.height <= region.y + region.height;
    if (isInside) return false;
    this.centre = middle;
    return true;
  }
}
