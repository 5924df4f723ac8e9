// Light or dark, and what was left open: remembered by this browser.

import { all } from "./dom.js";

const THEME = "dloral-theme", FOLDS = "dloral-open";

/** @param {() => void} after */
export const toggleTheme = (after) => {
  const isDark = document.body.classList.toggle("dark");
  localStorage.setItem(THEME, isDark ? "dark" : "light");
  after();
};

export const recallTheme = () => {
  const kept = new URLSearchParams(location.search).get("__theme") ?? localStorage.getItem(THEME);
  if (kept === "dark" || kept === "light") document.body.classList.toggle("dark", kept === "dark");
};

export const recallFolds = () => {
  const open = (localStorage.getItem(FOLDS) ?? "").split(" ");
  for (const details of all("details[id]")) {
    details.open = open.includes(details.id);
    details.addEventListener("toggle", () => {
      localStorage.setItem(FOLDS, all("details[open]").map((one) => one.id).join(" "));
    });
  }
};
