// What can be done with a result: downloads, comparison clips, curves.

class Results {
  constructor(link, curves, onError) {
    Object.assign(this, { link, curves, onError });
    find("#measures-open").addEventListener("click", () => this.toggleMeasures());
    for (const layout of ["side", "wipe"]) find(`#compare-${layout}`).addEventListener("click", (event) => this.comparison(layout, event.currentTarget));
  }

  offer(result) {
    find("#results").hidden = false;
    const download = find("#download");
    download.href = this.link.url(`files/${result.file}`, { download: 1 });
    download.download = result.file;
    download.textContent = `Download (${bytesWords(result.bytes)})`;
    download.title = result.file;
    const settings = find("#settings-file");
    settings.href = this.link.url(`files/${result.settings_file}`, { download: 1 });
    settings.download = result.settings_file;
    for (const layout of ["side", "wipe"]) find(`#compare-${layout}`).hidden = result.image;
    find("#measures-open").hidden = result.image;
    find("#notes").textContent = result.notes.join("; ");
    find("#notes").hidden = !result.notes.length;
  }

  forget() { find("#results").hidden = true; }

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
    } catch (error) { this.onError(error); } finally {
      button.disabled = false;
      button.textContent = words;
    }
  }
}
