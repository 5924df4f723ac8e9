// Which visits this browser has had: each is one clip with its job and result, kept by the server
// under a secret token. They are remembered across tabs and restarts, so that nothing is lost.

import { CONFIG } from "./mount.js";

const VISITS = "dloral-visits";     // in this browser: [{token, name, held, job}]
const TOKEN = "dloral-session";     // in this tab: the visit that it shows
const HELD_FOR = 12000;             // ms after which a tab that said nothing is taken for closed

/** @typedef {{token: string, name: string, held: number, job?: boolean}} Visit  ``job``: it has had one */

/** @returns {Visit[]} newest first */
export const visits = () => {
  try {
    const found = JSON.parse(localStorage.getItem(VISITS) ?? "[]");
    return Array.isArray(found) ? found.filter((visit) => typeof visit?.token === "string") : [];
  } catch { return []; }
};

// Of more visits than a server has, those go first that have the least to lose, and the oldest of
// them: without a clip, without a job, then the rest; what a tab shows stays.
/** @param {Visit[]} list @param {number} most */
const within = (list, most, now = Date.now()) => {
  /** @param {Visit} visit */
  const worth = ({ name, held, job }) => (now - held <= HELD_FOR ? 3 : job ? 2 : name ? 1 : 0);
  const kept = new Set([...list].sort((a, b) => worth(b) - worth(a)).slice(0, most));
  return list.filter((visit) => kept.has(visit));
};

/** @param {Visit[]} list */
const keep = (list) => {
  try { localStorage.setItem(VISITS, JSON.stringify(within(list, CONFIG.mostVisits))); } catch { /* private window */ }
};

export const ownToken = () => sessionStorage.getItem(TOKEN);

// This tab shows a visit from now on; ``name``: of its clip; ``job``: whether it has one.
/** @param {string} token @param {string} [name] @param {boolean} [job] */
export const hold = (token, name, job) => {
  sessionStorage.setItem(TOKEN, token);
  const list = visits(), known = list.find((visit) => visit.token === token);
  const visit = { token, name: name ?? known?.name ?? "", held: Date.now(), job: job ?? known?.job ?? false };
  keep(known ? list.map((one) => (one.token === token ? visit : one)) : [visit, ...list]);
};

// A visit with a job that no tab shows, such as a file of the queue.
/** @param {string} token @param {string} name */
export const remember = (token, name) => keep([{ token, name, held: 0, job: true }, ...visits().filter((visit) => visit.token !== token)]);

/** @param {string} token */
export const letGo = (token) => keep(visits().map((visit) => (visit.token === token ? { ...visit, held: 0 } : visit)));

/** @param {string} token */
export const forget = (token) => keep(visits().filter((visit) => visit.token !== token));

// The newest visit with a clip that no open tab shows.
export const freeVisit = (now = Date.now()) => visits().find((visit) => visit.name && now - visit.held > HELD_FOR);
