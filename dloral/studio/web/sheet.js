// The contact sheet: the busiest part of the frame at nine settings of the dials, to choose by eye.

import { find, pictureFrom } from "./dom.js";
import { around } from "./looks.js";
import { CONFIG } from "./mount.js";
import { dialWords } from "./words.js";

const SHEET_PIXELS = 160 * 100;  // small, so that a cell shows it enlarged and cells differ

export class Sheet {
  constructor(link, onChoice) {
    this.link = link;
    this.dialog = find("#sheet");
    this.dialog.querySelector("button").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => { this.isOpen = false; });
    this.onChoice = onChoice;
  }

  // ``centre``: of the part, 0 to 1 each way; null for the busiest.
  async open(frame, settings, centre) {
    const cells = this.dialog.querySelector(".cells");
    cells.replaceChildren();
    this.isOpen = true;
    this.dialog.showModal();
    const details = around(settings.detail, CONFIG.most), consistencies = around(settings.consistency, CONFIG.most);
    const wanted = [...details].reverse().flatMap((detail) => consistencies.map((consistency) => {
      const cell = document.createElement("button"), words = document.createElement("span");
      cell.type = "button";
      words.textContent = `consistency ${dialWords(consistency)} · detail ${dialWords(detail)}`;
      if (detail === settings.detail && consistency === settings.consistency) {
        cell.setAttribute("aria-current", "true");
        words.textContent += " · current";
      }
      cell.append(document.createElement("canvas"), words);
      cell.addEventListener("click", () => { this.dialog.close(); this.onChoice({ consistency, detail }); });
      cells.append(cell);
      return { cell, consistency, detail };
    }));
    for (const { cell, consistency, detail } of wanted) {
      if (!this.isOpen) return;
      const found = await this.link.call("POST", "preview", {
        body: { frame, pixels: SHEET_PIXELS, ...(centre ?? { busiest: true }), settings: { ...settings, consistency, detail, start: 0, duration: null } },
      });
      if (found.superseded) continue;
      const picture = await pictureFrom(found.blob);
      const canvas = cell.querySelector("canvas");
      canvas.width = picture.width;
      canvas.height = picture.height;
      canvas.getContext("2d").drawImage(picture, 0, 0);
      cell.classList.add("ready");
    }
  }
}
