// Marks on a picture, and a picture of all that the stage shows.

import { find } from "./dom.js";

// What the stage shows, with its labels, as a PNG.
/** @param {any} viewer @returns {Promise<Blob | null>} */
export const snapshot = (viewer) => {
  const { canvas } = viewer, copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  const context = copy.getContext("2d"), ratio = canvas.width / viewer.stage.clientWidth;
  context.fillStyle = "#101418";
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(canvas, 0, 0);
  if (viewer.mode.startsWith("wipe")) {
    context.fillStyle = "#fff";
    if (viewer.mode === "wipe") context.fillRect(viewer.line * copy.width - ratio, 0, 2 * ratio, copy.height);
    else context.fillRect(0, viewer.line * copy.height - ratio, copy.width, 2 * ratio);
  }
  const corner = viewer.stage.getBoundingClientRect();
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const tag of [find("#tag-a"), find("#tag-b")]) {
    if (tag.hidden) continue;
    const box = tag.getBoundingClientRect(), x = (box.left - corner.left) * ratio, y = (box.top - corner.top) * ratio;
    context.fillStyle = "#000a";
    context.fillRect(x, y, box.width * ratio, box.height * ratio);
    context.fillStyle = "#fff";
    context.fillText(tag.textContent, x + 8 * ratio, y + box.height * ratio / 2);
  }
  return new Promise((resolve) => copy.toBlob(resolve, "image/png"));
};

export const frameBox = (context, { x, y, width, height }, ratio) => {
  context.lineWidth = 3 * ratio;
  context.strokeStyle = "#000a";
  context.strokeRect(x, y, width, height);
  context.lineWidth = 1.5 * ratio;
  context.strokeStyle = "#fff";
  context.strokeRect(x, y, width, height);
};

export const hatched = (context) => {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 10;
  const pen = tile.getContext("2d");
  pen.fillStyle = "#0008";
  pen.fillRect(0, 0, 10, 10);
  pen.strokeStyle = "#fff6";
  pen.lineWidth = 1.2;
  for (const at of [-10, 0, 10]) {
    pen.beginPath();
    pen.moveTo(at, 10);
    pen.lineTo(at + 10, 0);
    pen.stroke();
  }
  return context.createPattern(tile, "repeat");
};
