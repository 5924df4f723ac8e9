// Which visits this browser has had: each is one clip with its job and result, kept by the server
// under a secret token. They are remembered across tabs and restarts, so that nothing is lost.

const VISITS = "dloral-visits";     // in this browser: [{token, name, held}]
const TOKEN = "dloral-session";     // in this tab: the visit that it shows
const HELD_FOR = 12000;             // ms after which a tab that said nothing is taken for closed
const MOST = 60;

/** @typedef {{token: string, name: string, held: number}} Visit */

/** @returns {Visit[]} newest first */
export const visits = () => {
  try {
    const found = JSON.parse(localStorage.getItem(VISITS) ?? "[]");
    return Array.isArray(found) ? found.filter((visit) => typeof visit?.token === "string") : [];
  } catch { return []; }
};

/** @param {Visit[]} list */
const keep = (list) => {
  try { localStorage.setItem(VISITS, JSON.stringify(list.slice(0, MOST))); } catch { /* private window */ }
};

export const ownToken = () => sessionStorage.getItem(TOKEN);

// This tab shows a visit from now on; ``name``: of its clip.
/** @param {string} token @param {string} [name] */
export const hold = (token, name) => {
  sessionStorage.setItem(TOKEN, token);
  const list = visits(), known = list.find((visit) => visit.token === token);
  const visit = { token, name: name ?? known?.name ?? "", held: Date.now() };
  keep(known ? list.map((one) => (one.token === token ? visit : one)) : [visit, ...list]);
};

// A visit that no tab shows, such as a file of the queue.
/** @param {string} token @param {string} name */
export const remember = (token, name) => keep([{ token, name, held: 0 }, ...visits().filter((visit) => visit.token !== token)]);

/** @param {string} token */
export const letGo = (token) => keep(visits().map((visit) => (visit.token === token ? { ...visit, held: 0 } : visit)));

/** @param {string} token */
export const forget = (token) => keep(visits().filter((visit) => visit.token !== token));

// The newest visit with a clip that no open tab shows.
export const freeVisit = (now = Date.now()) => visits().find((visit) => visit.name && now - visit.held > HELD_FOR);
