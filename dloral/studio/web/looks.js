// Looks: settings of the dials under a name. And sizes: an enlargement under a name.

import { clamp } from "./words.js";

/** @typedef {{name: string, title: string, dials: {consistency: number, detail: number, strength: number}}} Look */

const look = (name, title, consistency, detail, strength = 1) => ({ name, title, dials: { consistency, detail, strength } });

/** @type {Look[]} */
export const LOOKS = [
  look("Natural", "a good start for most clips", 1, 1),
  look("Crisp", "more detail, further from the clip", 1, 1.5),
  look("Calm", "steadier and softer", 1.6, 0.3, 0.85),
  look("Phone clip", "for noise and camera shake", 1.3, 0.7),
  look("Web video", "for blocking and smeared edges", 1.1, 1.2),
  look("Old film", "steady; keeps some of the original", 1.5, 0.3, 0.7),
  look("CCTV", "for heavy compression; invents little", 1.3, 0.7, 0.9),
  look("Animation", "for clean lines and flat colour", 1.2, 0.85),
];

// The look that the dials stand at, if it has a name.
/** @param {{consistency: number, detail: number, strength: number}} dials */
export const lookOf = (dials) => LOOKS.find((one) =>
  ["consistency", "detail", "strength"].every((dial) => Math.abs(one.dials[dial] - dials[dial]) < 0.011));

/** @type {Record<string, [number, number]>} */
export const BOXES = { "1080p": [1920, 1080], "1440p": [2560, 1440], "4K": [3840, 2160] };

// The enlargement that a named size means for a clip; null where that is out of reach.
/** @param {string} name @param {{width: number, height: number}} clip @param {[number, number]} range */
export const scaleOf = (name, clip, [least, most]) => {
  if (!BOXES[name]) return Number(name);
  const scale = exactScale(name, clip);
  return scale < least || scale > most ? null : scale;
};

const exactScale = (name, clip) => {
  const [long, short] = BOXES[name], isWide = clip.width >= clip.height;
  return Math.min((isWide ? long : short) / clip.width, (isWide ? short : long) / clip.height);
};

// The box of a named size for a clip, which upright clips take upright; null where it is none.
/** @param {string} name @param {{width: number, height: number} | null} clip */
export const fitOf = (name, clip) => {
  const box = BOXES[name];
  return box && clip ? (clip.width >= clip.height ? box : [...box].reverse()).join("x") : null;
};

// Settings chosen at one clip, for another: a named size is met anew, as nearly as the range allows.
/** @param {any} settings @param {string} name  Of the size. @param {{width: number, height: number, suggested: {scale: number}}} clip @param {[number, number]} range */
export const settingsFor = (settings, name, clip, range) => {
  if (!name) return { ...settings, scale: clip.suggested.scale, fit: null };
  if (!BOXES[name]) return settings;
  const scale = scaleOf(name, clip, range);
  return { ...settings, scale: scale ?? clamp(exactScale(name, clip), ...range), fit: scale === null ? null : fitOf(name, clip) };
};

/** @param {number} scale @param {{width: number, height: number}} clip @param {[number, number]} range */
export const sizeOf = (scale, clip, range) => ["2", "4", ...Object.keys(BOXES)].find((name) => {
  const meant = scaleOf(name, clip, range);
  return meant !== null && Math.abs(meant - scale) < 1e-6;
}) ?? "own";

// The dials of a contact sheet: three by three around those in use, which are among them.
/** @param {number} now @param {number} most */
export const around = (now, most) => {
  const step = 0.6, middle = clamp(now, step, most - step);
  const values = [middle - step, middle, middle + step].map((value) => Math.round(value * 20) / 20);
  const nearest = values.reduce((best, value, index) => (Math.abs(value - now) < Math.abs(values[best] - now) ? index : best), 0);
  values[nearest] = now;
  return values;
};
