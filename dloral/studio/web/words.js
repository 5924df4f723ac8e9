// Words for numbers, without a page: also run by node's tests.

/** @param {number} value @param {number} least @param {number} most */
export const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

/** @param {number} bytes */
export const bytesWords = (bytes) => {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
};

/** @param {number} seconds */
export const timeWords = (seconds) => {
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
};

// How long something is kept: in whole words, for nobody counts on the minute.
/** @param {number} seconds */
export const longWords = (seconds) => {
  const [size, unit] = /** @type {[number, string]} */ (seconds < 3600 ? [60, "minute"] : seconds < 172_800 ? [3600, "hour"] : [86_400, "day"]);
  const count = Math.max(1, Math.round(seconds / size));
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
};

// Seconds between two values that are known no better: "about 40 s", "40 to 70 s", "2 to 4 min".
/** @param {number} least @param {number} most */
export const rangeWords = (least, most) => {
  const step = most < 20 ? 1 : most < 100 ? 5 : 60, up = Math.max(step, Math.round(most / step) * step);
  const [low, high] = [timeWords(Math.max(step, Math.round(least / step) * step)), timeWords(up)];
  if (low === high || most < 1.25 * least || most < 4) return `about ${timeWords(Math.max(1, (least + most) / 2))}`;
  const unit = high.slice(high.indexOf(" "));
  return `${low.endsWith(unit) ? low.slice(0, -unit.length) : low} to ${high}`;
};

// A part between two frames as the server takes it, in milliseconds; never rounded up, which would
// lose the first frame or take one more at the end.
/** @param {number} from @param {number} to  Seconds. */
export const partOf = (from, to) => {
  const down = (seconds) => Math.floor(seconds * 1000 + 1e-6) / 1000, start = down(from);
  return { start, duration: down(to - start) };
};

// The length of a part of a clip, which may be a fraction of a second.
/** @param {number} seconds */
export const partWords = (seconds) => {
  if (seconds >= 99.5) return timeWords(seconds);
  return `${seconds < 10 ? Math.round(seconds * 100) / 100 : Math.round(seconds)} s`;
};

// Frames a second, or seconds a frame where one takes longer than that.
/** @param {number} rate */
export const rateWords = (rate) => {
  if (rate >= 1) return `${rate >= 10 ? rate.toFixed(0) : rate.toFixed(1)} frames/s`;
  const seconds = 1 / rate;
  return `${seconds >= 10 ? Math.round(seconds) : seconds.toFixed(1)} s a frame`;
};

// "13/10" -> 1.3
/** @param {string} text */
export const fraction = (text) => { const [over, under = "1"] = text.split("/"); return Number(over) / Number(under); };

/** @param {string} name  A model's name or folder. */
export const shortName = (name) => name.split(/[/\\]/).filter(Boolean).pop() ?? name;

/** @param {string} name */
export const modelWords = (name) => {
  const short = shortName(name), kind = { compact: " (fast)", sd21: " (large)", bicubic: " (plain enlargement)" }[short] ?? "";
  return `Model: ${short}${kind}`;
};

/** @param {number} value */
export const dialWords = (value) => (value === 0 ? "off" : value.toFixed(2));
