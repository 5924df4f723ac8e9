// What Gradio hands to the page: its element, the functions of its component, the server's facts.

/** @type {HTMLElement} */
export let element;
/** @type {{open_session: (nothing: string) => Promise<string>}} */
export let server;
/** @type {import("./types").Configuration} */
export let CONFIG;

/** @param {HTMLElement} root @param {any} functions @param {import("./types").Configuration} facts */
export const mount = (root, functions, facts) => {
  element = root;
  server = functions;
  CONFIG = facts;
};
