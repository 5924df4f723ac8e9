// The contact sheet: one crop at a grid of both scales, for choosing by eye.

const SHEET_SCALES = [0, 0.5, 1, 1.5];
const SHEET_PIXELS = 224 * 224;

class Sheet {
  constructor(link, onChoice) {
    this.link = link;
    this.dialog = find("#sheet");
    this.dialog.querySelector("button").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => { this.isOpen = false; });
    this.onChoice = onChoice;
  }

  // ``centre``: of the crop, 0 to 1 each way.
  async open(frame, settings, centre) {
    const cells = this.dialog.querySelector(".cells");
    cells.replaceChildren();
    this.isOpen = true;
    this.dialog.showModal();
    const wanted = [...SHEET_SCALES].reverse().flatMap((detail) => SHEET_SCALES.map((consistency) => {
      const cell = document.createElement("button");
      cell.type = "button";
      const words = document.createElement("span");
      words.textContent = `consistency ${consistency} · detail ${detail}`;
      cell.append(document.createElement("canvas"), words);
      cell.addEventListener("click", () => { this.dialog.close(); this.onChoice({ consistency, detail }); });
      cells.append(cell);
      return { cell, consistency, detail };
    }));
    for (const { cell, consistency, detail } of wanted) {
      if (!this.isOpen) return;
      const found = await this.link.call("POST", "preview", {
        body: { frame, pixels: SHEET_PIXELS, ...centre, settings: { ...settings, consistency, detail, start: 0, duration: null } },
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
