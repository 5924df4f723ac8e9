// Calls to the server, and whether it is there at all.

const find = (selector) => element.querySelector(selector);
const all = (selector) => [...element.querySelectorAll(selector)];
const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
const ROOT = (window.gradio_config?.root ?? location.origin + location.pathname).replace(/\/+$/, "");
const TOKEN = "dloral-session";  // in this tab's storage, so that a reload is the same visitor

class RefusedError extends Error {}  // the server said why in one line
class GoneError extends Error {}     // the server does not know this visitor any more
class LostError extends Error {}     // there is no server

class Link {
  constructor(onLost, onBack) {
    this.onLost = onLost;
    this.onBack = onBack;
    this.isLost = false;
  }

  async open(anew = false) {
    this.token = anew ? null : sessionStorage.getItem(TOKEN);
    if (!this.token) {
      this.token = await server.open_session("");
      sessionStorage.setItem(TOKEN, this.token);
    }
  }

  url(path, parameters = {}) {
    const query = new URLSearchParams(parameters).toString();
    return `${ROOT}/studio/${this.token}/${path}${query ? `?${query}` : ""}`;
  }

  // JSON as an object; a picture as {blob, headers}.
  async call(method, path, { parameters, body, signal } = {}) {
    const isJson = body !== undefined && !(body instanceof Blob);
    let response;
    try {
      response = await fetch(this.url(path, parameters), {
        method, signal,
        body: isJson ? JSON.stringify(body) : body,
        headers: isJson ? { "content-type": "application/json" } : {},
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.lose();
      throw new LostError("The connection is lost.");
    }
    return this.read(response);
  }

  async read(response) {
    const type = response.headers.get("content-type") ?? "";
    if (!type.includes("json")) return { blob: await response.blob(), headers: response.headers };
    const found = await response.json();
    if (found.gone) throw new GoneError("This page was away for too long.");
    if (found.error) throw new RefusedError(found.error);
    return found;
  }

  // A file as it is on the disk; told(share) while it is on its way.
  send(file, name, told) {
    const request = new XMLHttpRequest();
    const done = new Promise((resolve, reject) => {
      request.upload.onprogress = (event) => told(event.loaded / Math.max(event.total, 1));
      request.onload = () => {
        const response = new Response(request.response, {
          headers: { "content-type": request.getResponseHeader("content-type") },
        });
        this.read(response).then(resolve, reject);
      };
      request.onerror = () => { this.lose(); reject(new LostError("The upload was broken off; drop the file again.")); };
      request.onabort = () => reject(new RefusedError("The upload was stopped."));
    });
    request.open("POST", this.url("clip", { name }));
    request.responseType = "text";
    request.send(file);
    return { done, stop: () => request.abort() };
  }

  lose() {
    if (this.isLost) return;
    this.isLost = true;
    this.onLost();
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
      } catch { /* still away */ }
    }, 1500);
  }

  // Said while the page closes or is loaded anew; the browser sends it even then.
  leave() {
    navigator.sendBeacon(this.url("leave"));
  }
}
