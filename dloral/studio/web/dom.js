// Finding things of the page, and small things that several parts do with them.

import { element } from "./mount.js";

/** @param {string} selector @returns {any} */
export const find = (selector) => element.querySelector(selector);
/** @param {string} selector @returns {any[]} */
export const all = (selector) => [...element.querySelectorAll(selector)];

/** @param {string} text  Said once by screen readers. */
export const announce = (text) => { find("#announce").textContent = text; };

// While ``work`` goes on the button cannot be pressed; it has the focus again that it lost by that.
/** @param {any} button @param {() => Promise<any>} work */
export const disabledWhile = async (button, work) => {
  const had = document.activeElement === button;
  button.disabled = true;
  try { return await work(); } finally {
    button.disabled = false;
    if (had && (document.activeElement ?? document.body) === document.body) button.focus();
  }
};

export const movesLittle = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// Radio buttons of our own: one stop of the Tab key, arrows go from one to the next.
/** @param {any} group @param {(button: any) => void} onChoose */
export const radios = (group, onChoose) => {
  const buttons = () => [...group.querySelectorAll("[role=radio]")];
  group.addEventListener("click", (event) => {
    const button = event.target.closest("[role=radio]");
    if (button && !button.disabled) onChoose(button);
  });
  group.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const usable = buttons().filter((button) => !button.disabled);
    const next = usable[(usable.indexOf(document.activeElement) + by + usable.length) % usable.length];
    next.focus();
    onChoose(next);
  });
  check(group, buttons().find((button) => button.getAttribute("aria-checked") === "true"));
};

// ``checked``: none where no choice fits; the first then takes the Tab key.
/** @param {any} group @param {any} [checked] */
export const check = (group, checked) => {
  const buttons = [...group.querySelectorAll("[role=radio]")];
  const stop = checked ?? buttons.find((button) => !button.disabled);
  for (const button of buttons) {
    button.setAttribute("aria-checked", String(button === checked));
    button.tabIndex = button === stop ? 0 : -1;
  }
};

// Fill a small canvas with the picture, or its first ``width`` pixels.
export const cover = (context, picture, width = picture.width) => {
  const { canvas } = context, scale = Math.max(canvas.width / width, canvas.height / picture.height);
  const w = canvas.width / scale, h = canvas.height / scale;
  context.drawImage(picture, (width - w) / 2, (picture.height - h) / 2, w, h, 0, 0, canvas.width, canvas.height);
};

// ``share``: 0 to 1, or null while nobody knows.
export const fillBar = (bar, share) => {
  bar.classList.toggle("unknown", share === null);
  bar.firstElementChild.style.width = `${100 * (share ?? 0)}%`;
  if (share === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.round(100 * share)));
};

export const pictureFrom = (blob) => createImageBitmap(blob, { colorSpaceConversion: "none" });

// A file for the person: as if a link to it had been pressed.
export const download = (href, name) => {
  const link = document.createElement("a");
  link.href = href;
  link.download = name;
  link.click();
};
