// Files of this machine, where the page serves nobody else: chosen by folder, nothing is sent.

import { find } from "./dom.js";
import { CONFIG } from "./mount.js";
import { bytesWords } from "./words.js";

const MEMORY = "dloral-folder";  // in this browser: the folder that was open last

export class Places {
  // ``onFiles``: [{name, path}] that were chosen.
  constructor(link, onFiles) {
    this.link = link;
    this.onFiles = onFiles;
    this.dialog = find("#places");
    this.path = find("#places-path");
    this.list = find("#places-list");
    /** @type {((path: string) => void) | null} */
    this.onFolder = null;
    find("#places-open").hidden = !CONFIG.isLocal;
    find("#places-open").addEventListener("click", () => this.open());
    find("#places-close").addEventListener("click", () => this.dialog.close());
    find("#places-form").addEventListener("submit", (event) => { event.preventDefault(); this.go(this.path.value.trim()); });
    this.path.addEventListener("input", () => { this.asked = {}; });  // a listing under way would write over it
    find("#places-all").addEventListener("click", () => { for (const box of this.boxes) box.checked = true; this.count(); });
    find("#places-take").addEventListener("click", () => this.take());
    this.list.addEventListener("click", (event) => {
      const folder = event.target.closest("[data-folder]");
      if (folder) this.go(folder.dataset.folder);
    });
    this.list.addEventListener("change", () => this.count());
  }

  get boxes() { return [...this.list.querySelectorAll("input[type=checkbox]")]; }

  /** @param {((path: string) => void) | null} onFolder  Instead of files, where a folder is wanted. */
  async open(onFolder = null) {
    this.onFolder = onFolder;
    this.dialog.showModal();
    const kept = localStorage.getItem(MEMORY) ?? "";
    if (!await this.go(kept) && kept) await this.go("");  // it is there no more
  }

  // Whether the folder could be opened, or another was asked for meanwhile.
  async go(path) {
    const says = find("#places-says"), own = this.asked = {};
    try {
      const found = await this.link.call("POST", "places", { body: { path } });
      if (own !== this.asked) return true;
      this.shown = found.path;
      this.path.value = found.path;
      localStorage.setItem(MEMORY, found.path);
      const up = found.parent === found.path ? [] : [{ name: "parent folder", path: found.parent }];
      const separator = found.path.endsWith("/") || found.path.endsWith("\\") ? "" : found.path.includes("\\") ? "\\" : "/";
      const folders = [...up, ...found.folders.map((name) => ({ name, path: found.path + separator + name }))];
      this.list.replaceChildren(...folders.map(folderEntry), ...(this.onFolder ? [] : found.files.map(fileEntry)));
      this.list.scrollTop = 0;
      says.textContent = placeWords(found.files.length, found.more);
    } catch (error) {
      if (own !== this.asked) return true;
      says.textContent = error.message;
      return false;
    } finally { this.count(); }
    return true;
  }

  count() {
    const chosen = this.boxes.filter((box) => box.checked), take = find("#places-take");
    find("#places-all").hidden = Boolean(this.onFolder) || this.boxes.length < 2;
    take.disabled = this.onFolder ? this.shown === undefined : !chosen.length;
    take.textContent = this.onFolder ? "Save here" : chosen.length > 1 ? `Restore ${chosen.length}, one after another` : "Open";
  }

  take() {
    const { onFolder } = this;
    this.dialog.close();
    if (onFolder) onFolder(this.shown);
    else this.onFiles(this.boxes.filter((box) => box.checked).map((box) => ({ name: box.dataset.name, path: box.value })));
  }
}

/** @param {number} count @param {number} more  Entries that are not listed. */
const placeWords = (count, more) => {
  const here = count ? `${count} ${count === 1 ? "clip or picture" : "clips and pictures"}` : "No clips or pictures";
  return `${here} here${more ? `; ${more} more ${more === 1 ? "entry" : "entries"} not listed` : ""}`;
};

const folderEntry = ({ name, path }) => {
  const item = document.createElement("li"), button = document.createElement("button");
  Object.assign(button, { type: "button", className: "plain", textContent: name });
  button.dataset.folder = path;
  button.setAttribute("aria-label", `Folder ${name}`);
  item.append(button);
  return item;
};

const fileEntry = ({ name, path, bytes }) => {
  const item = document.createElement("li"), label = document.createElement("label"), box = document.createElement("input"), size = document.createElement("span");
  Object.assign(box, { type: "checkbox", value: path });
  box.dataset.name = name;
  size.className = "muted";
  size.textContent = bytesWords(bytes);
  label.className = "check";
  label.append(box, name, size);
  item.append(label);
  return item;
};
