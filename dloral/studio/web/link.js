// Calls to the server, and whether it is there at all.

import { server } from "./mount.js";
import { hold, ownToken } from "./visits.js";

export const ROOT = (/** @type {any} */ (window).gradio_config?.root ?? location.origin + location.pathname).replace(/\/+$/, "");

export class RefusedError extends Error {}  // the server said why in one line
export class GoneError extends Error {}     // the server does not know this visitor any more
export class LostError extends Error {}     // there is no server

// On a Space the page around this one knows the visitor; its headers let ZeroGPU count their quota.
// Asked in the way of Gradio's client, for calls that it does not make.
/** @returns {Promise<Record<string, string>>} */
async function visitorHeaders() {
  const asks = /** @type {any} */ (window).supports_zerogpu_headers && window.parent !== window;
  if (!asks || !location.hostname.endsWith(".hf.space")) return {};
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => { port1.close(); resolve(data ?? {}); };
    window.parent.postMessage("zerogpu-headers", "https://huggingface.co", [port2]);
  });
}

export class Link {
  /** @param {(isOnline: boolean) => void} onLost @param {(state: any) => void} onBack */
  constructor(onLost, onBack) {
    this.onLost = onLost;
    this.onBack = onBack;
    this.isLost = false;
    this.token = "";
  }

  // The visit of this tab, or a new one.
  async open(anew = false) {
    const token = (anew ? null : ownToken()) ?? await this.newToken();
    this.use(token);
  }

  newToken() { return server.open_session(""); }

  /** @param {string} token */
  use(token, name = undefined) {
    this.token = token;
    hold(token, name);
  }

  /** @param {string} path */
  url(path, parameters = {}, token = this.token) {
    const query = new URLSearchParams(parameters).toString();
    return `${ROOT}/studio/${token ? `${token}/` : ""}${path}${query ? `?${query}` : ""}`;
  }

  // JSON as an object; a picture as {blob, headers}. ``token``: "" for calls about many visits.
  /** @param {string} method @param {string} path @param {any} options */
  async call(method, path, { parameters, body, signal, token } = /** @type {any} */ ({})) {
    const isJson = body !== undefined && !(body instanceof Blob);
    const who = method === "POST" ? await visitorHeaders() : {};
    let response;
    try {
      response = await fetch(this.url(path, parameters, token), {
        method, signal,
        body: isJson ? JSON.stringify(body) : body,
        headers: isJson ? { "content-type": "application/json", ...who } : who,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.lose();
      throw new LostError("Connection lost.");
    }
    return this.read(response);
  }

  /** @param {Response} response */
  async read(response) {
    const type = response.headers.get("content-type") ?? "";
    if (!type.includes("json")) return { blob: await response.blob(), headers: response.headers };
    const found = await response.json();
    if (found.gone) throw new GoneError("This page was inactive for too long.");
    if (found.error) throw new RefusedError(found.error);
    return found;
  }

  // A file as it is on the disk; told(share) while it is on its way.
  /** @param {Blob} file @param {string} name @param {(share: number) => void} told */
  send(file, name, told, token = this.token) {
    const request = new XMLHttpRequest();
    const done = new Promise((resolve, reject) => {
      request.upload.onprogress = (event) => told(event.loaded / Math.max(event.total, 1));
      request.onload = () => {
        const response = new Response(request.response, {
          headers: { "content-type": request.getResponseHeader("content-type") ?? "" },
        });
        this.read(response).then(resolve, reject);
      };
      request.onerror = () => {
        // A file that was moved or changed since it was chosen fails in the same way.
        file.slice(0, 1).arrayBuffer().then(() => {
          this.lose();
          reject(new LostError("The upload failed; drop the file again."));
        }, () => reject(new RefusedError(`${name} was moved or changed; choose it again.`)));
      };
      request.onabort = () => reject(new RefusedError("The upload was stopped."));
    });
    request.open("POST", this.url("clip", { name }, token));
    request.responseType = "text";
    request.send(file);
    return { done, stop: () => request.abort() };
  }

  lose() {
    if (this.isLost) return;
    this.isLost = true;
    this.onLost(navigator.onLine);
    const again = setInterval(async () => {
      try {
        const response = await fetch(this.url("state"));
        const state = await this.read(response).catch((error) => {
          if (error instanceof GoneError) return null;
          throw error;
        });
        clearInterval(again);
        this.isLost = false;
        this.onBack(state);
      } catch { this.onLost(navigator.onLine); }
    }, 1500);
  }

  // Said while the page closes or is loaded anew; the browser sends it even then.
  leave() {
    navigator.sendBeacon(this.url("leave"));
  }
}
